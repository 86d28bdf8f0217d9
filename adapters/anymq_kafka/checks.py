"""Checks of the cluster: version, replication, confirmed copies, leaders, retention, clock."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

from anymq.driver import Check, Inspection, Record, TopicSpec, clock_difference, inspect, new_id

from .client.compat import (
    AIOKafkaAdminClient,
    ApiVersionRequest,
    ConfigResource,
    ConfigResourceType,
    TopicPartition,
    kafka,
)
from .client.internals import check, forget_topic, send_request
from .connection import Clients
from .errors import ERRORS
from .options import KafkaOptions
from .positions import times_at
from .publisher import Publisher
from .topology import TopicPlan, Topology

FETCH, FETCH_OF_4 = 1, 4
"""The request Fetch, and the least version of it that Kafka 4.0 and newer know."""
COPIES_FIX = "add replication=3 to the URL, or set default.replication.factor=3 on the brokers"

_ACL = "kafka-acls --add --allow-principal User:NAME {}"
_ON_TOPICS = _ACL.format("--operation {} --topic PREFIX --resource-pattern-type prefixed")
_ON_GROUPS = _ACL.format("--operation {} --group PREFIX --resource-pattern-type prefixed")
GRANTS = {
    "can create topics": _ON_TOPICS.format("Create"),
    "can publish": f"{_ON_TOPICS.format('Write')}; {_ACL.format('--idempotent --cluster')}",
    "can create groups": f"{_ON_GROUPS.format('Read')}; {_ON_TOPICS.format('Read')}",
    "can receive": f"{_ON_GROUPS.format('Read')}; {_ON_TOPICS.format('Read')}",
    "can retry": f"{_ON_TOPICS.format('Create')} --operation Write, also for GROUP's retry topics",
    "can acknowledge": _ON_GROUPS.format("Read"),
    "can describe": f"{_ON_TOPICS.format('DescribeConfigs')}; {_ON_GROUPS.format('Describe')}",
    "can delete": f"{_ON_TOPICS.format('Delete')}; {_ON_GROUPS.format('Delete')}",
}
_FIXES = {
    "replication": _ACL.format("--operation DescribeConfigs --cluster"),
    "clock": _ON_TOPICS.format("Create"),
}


async def checks(
    clients: Clients, topology: Topology, publisher: Publisher, scratch: TopicSpec | None
) -> AsyncGenerator[Check, None]:
    """Yield the checks of the cluster."""
    inspections: dict[str, Inspection] = {
        "server version": partial(_version, topology),
        "replication": partial(_replication, topology, clients.options),
        "clock": partial(_clock, clients, topology, publisher, scratch),
    }
    async for found in inspect(inspections, ERRORS, fixes=_FIXES):
        yield found


async def _version(topology: Topology) -> Sequence[Check]:
    async def ask(admin: AIOKafkaAdminClient) -> Any:
        node = (await admin.describe_cluster())["brokers"][0]["node_id"]
        return await send_request(admin, node, ApiVersionRequest())

    answer = await topology.call(ask)
    versions = {key: (least, most) for key, least, most in answer.api_versions}
    least, most = versions.get(FETCH, (0, 0))
    release = "Kafka 4.0 or newer" if least >= FETCH_OF_4 else "older than Kafka 4.0"
    return [Check.ok("server version", f"{release} (Fetch v{least} to v{most})")]


async def _replication(topology: Topology, options: KafkaOptions) -> Sequence[Check]:
    async def ask(admin: AIOKafkaAdminClient) -> tuple[int, Any]:
        brokers = (await admin.describe_cluster())["brokers"]
        node = ConfigResource(ConfigResourceType.BROKER, str(brokers[0]["node_id"]))
        (answer,) = await admin.describe_configs([node])
        return len(brokers), answer

    brokers, answer = await topology.call(ask)
    ((code, _, _, _, entries),) = answer.resources
    check(code)
    settings = {name: value for name, value, *_ in entries if value is not None}
    return replication(brokers, settings, options)


def replication(
    brokers: int, settings: Mapping[str, str], options: KafkaOptions
) -> Sequence[Check]:
    """Return the checks of a broker's `settings`, in a cluster of so many `brokers`."""
    default = int(settings.get("default.replication.factor", "1"))
    copies = default if options.replication == -1 else options.replication
    return [
        _copies(brokers, copies),
        _confirmed(brokers, copies, int(settings.get("min.insync.replicas", "1"))),
        _leaders(settings),
        _group_offsets(brokers, settings),
        _retention(settings, options),
    ]


def _copies(brokers: int, copies: int) -> Check:
    name = "replication"
    if brokers == 1:
        return Check.ok(name, "a single broker: the loss of its disk loses messages")
    detail = f"{copies} copies of new topics on {brokers} brokers"
    if copies > 1:
        return Check.ok(name, detail)
    text = f"1 copy of new topics on {brokers} brokers: the loss of one broker loses messages"
    return Check.failed(name, text, fix=COPIES_FIX)


def _confirmed(brokers: int, copies: int, least: int) -> Check:
    """Return the check of the copies that have a message when its publish is confirmed."""
    name = "min.insync.replicas"
    if brokers == 1 or copies == 1:
        return Check.ok(name, f"{least}, of 1 copy")
    if least == 1:
        detail = f"1 of {copies} copies: a confirmed message may be lost with one broker"
        return Check.failed(name, detail, fix="set min.insync.replicas=2 on the brokers")
    if least >= copies:
        detail = f"{least} of {copies} copies: no publish succeeds while one broker is down"
        fix = f"set min.insync.replicas={copies - 1}, or keep one copy more"
        return Check.warning(name, detail, fix=fix)
    return Check.ok(name, f"{least} of {copies} copies")


def _leaders(settings: Mapping[str, str]) -> Check:
    name = "unclean.leader.election"
    if settings.get("unclean.leader.election.enable") != "true":
        return Check.ok(name, "off")
    detail = "a broker without the newest messages may become the leader, and they are lost"
    return Check.failed(name, detail, fix="set unclean.leader.election.enable=false")


def _group_offsets(brokers: int, settings: Mapping[str, str]) -> Check:
    name = "offsets of groups"
    copies = int(settings.get("offsets.topic.replication.factor", "1"))
    if brokers > 1 and copies == 1:
        detail = "1 copy: the loss of one broker stops groups and repeats what they have done"
        fix = "set offsets.topic.replication.factor=3, and reassign __consumer_offsets"
        return Check.failed(name, detail, fix=fix)
    minutes = int(settings.get("offsets.retention.minutes", "10080"))
    return Check.ok(name, f"kept for {_days(minutes * 60_000)} after the last member has left")


def _retention(settings: Mapping[str, str], options: KafkaOptions) -> Check:
    name = "retention"
    if options.retention is not None:
        own = "forever" if options.retention < 0 else f"for {_days(options.retention * 1000)}"
        return Check.ok(name, f"new topics keep messages {own}, by the URL")
    kept = _retention_ms(settings)
    groups = int(settings.get("offsets.retention.minutes", "10080")) * 60_000
    detail = "new topics keep messages " + ("forever" if kept < 0 else f"for {_days(kept)}")
    if 0 <= kept <= groups:
        return Check.ok(name, f"{detail}, handled or not")
    text = f"{detail}, and a group that is idle for {_days(groups)} is forgotten before"
    fix = "set offsets.retention.minutes to at least the retention of topics"
    return Check.warning(name, text, fix=fix)


def _retention_ms(settings: Mapping[str, str]) -> int:
    for name, factor in (("ms", 1), ("minutes", 60_000), ("hours", 3_600_000)):
        if (value := settings.get(f"log.retention.{name}")) is not None:
            return int(value) * factor
    return 7 * 86_400_000


def _days(milliseconds: float) -> str:
    hours = milliseconds / 3_600_000
    return f"{hours / 24:.3g} days" if hours >= 48 else f"{hours:.3g} h"


async def _clock(
    clients: Clients, topology: Topology, publisher: Publisher, scratch: TopicSpec | None
) -> Sequence[Check]:
    """Compare the clocks by the time at which the leader of a temporary topic stores a record."""
    if scratch is None:
        return [Check.unknown("clock", "a broker tells its time only in a topic of its own")]
    # Kafka deletes in the background, so the scratch topic itself would not be free at once.
    name = f"{scratch.native}-clock"
    plan = TopicPlan(
        name, 1, clients.options.replication, {"message.timestamp.type": "LogAppendTime"}
    )
    await topology.create([plan])
    try:
        identity = new_id()
        record = Record(topic=name, id=identity, unique=identity, body=b"doctor")
        earliest = time.time()
        (outcome,) = await publisher.publish([name], [record])
        latest = time.time()
        if isinstance(outcome, BaseException):
            raise outcome
        tp = TopicPartition(name, 0)
        told = (await times_at(clients, {tp: 0})).get(tp)
    finally:
        await topology.delete([name])
        if publisher.producer is not None:
            forget_topic(publisher.producer, name)
    if told is None:
        raise kafka.UnknownTopicOrPartitionError(name)
    return [clock_difference(told / 1000, earliest, latest)]
