"""Where reading begins: what a `Start` means in offsets, and the place of a new group."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime

from anymq.driver import ConfigurationError, Start, logger

from .client.fetcher import Fetched
from .client.internals import AIOKafkaConsumer, TopicPartition, commit, committed, kafka
from .connection import Clients, stop_consumer
from .group.committer import REFUSED
from .messages import KafkaReceived
from .topology import Topology

log = logger("anymq.kafka")

REFUSALS = 10
PAUSE = 0.2
STOP_GRACE = 1.0
_POSITION = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")

Places = dict[TopicPartition, int]


def check(start: Start) -> None:
    """Raise `ConfigurationError` for what is no place to begin at."""
    if isinstance(start, datetime):
        if start.utcoffset() is None:
            raise ConfigurationError(f"the time {start} says nothing of its time zone")
    elif start not in ("earliest", "latest") and not _POSITION.fullmatch(start):
        raise ConfigurationError(
            f"{start!r} is no place to begin at: give earliest, latest, an aware datetime or a "
            'position "partition:offset"'
        )


async def partitions_of(topology: Topology, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic that must exist."""
    count = await topology.partitions(topic)
    if count is None:
        raise kafka.UnknownTopicOrPartitionError(topic)
    return [TopicPartition(topic, number) for number in range(count)]


@asynccontextmanager
async def reader(clients: Clients, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that joins nothing; started within the request timeout, stopped by force."""
    consumer = clients.consumer(group)
    try:
        async with asyncio.timeout(clients.options.request_timeout):
            await clients.start(consumer)
        yield consumer
    finally:
        await stop_consumer(consumer, STOP_GRACE)


async def places_for(
    clients: Clients, consumer: AIOKafkaConsumer, tps: Collection[TopicPartition], start: Start
) -> Places:
    """Return the offset to begin at in each of `tps`, all the partitions of one topic."""
    check(start)
    if start == "earliest":
        return dict(await consumer.beginning_offsets(tps))
    # Looked up first: what is stored from now on lies above these.
    ends: Places = dict(await consumer.end_offsets(tps))
    if start == "latest":
        return ends
    if isinstance(start, datetime):
        return await _since(consumer, ends, int(start.timestamp() * 1000))
    match = _POSITION.fullmatch(start)
    assert match is not None
    tp = next(iter(tps))._replace(partition=int(match[1]))
    offset = int(match[2])
    if offset > ends.get(tp, -1):
        raise ConfigurationError(f"there is no position {start!r} in {tp.topic}")
    moment = (await times_at(clients, {tp: offset})).get(tp) if offset < ends[tp] else None
    places = ends if moment is None else await _since(consumer, ends, moment)
    return places | {tp: offset}


async def _since(consumer: AIOKafkaConsumer, ends: Places, moment: int) -> Places:
    """Return the first record of `moment` (milliseconds) or later; the end where there is none."""
    found = await consumer.offsets_for_times(dict.fromkeys(ends, max(0, moment)))
    return {tp: found[tp].offset if found.get(tp) else end for tp, end in ends.items()}


async def times_at(clients: Clients, places: Places) -> dict[TopicPartition, int]:
    """Return the time of the record at each place, or of the next one there; in milliseconds."""
    found: dict[TopicPartition, int] = {}
    if not places:
        return found
    async with reader(clients) as consumer:
        fetched = Fetched(consumer, clients.options.max_decompressed)
        for tp, offset in places.items():
            consumer.assign([tp])
            consumer.seek(tp, offset)
            for _, records in await fetched.read(clients.options.request_timeout / 2, 1):
                found[tp] = _published(records[0])
    return found


def _published(record: KafkaReceived) -> int:
    """Return the time of a record; of a copy that waits for a retry, when it was published first.

    In milliseconds.
    """
    stored = record.millis
    if not record.headers.due():
        return stored
    try:
        first = datetime.fromisoformat(record.headers.get("ce_time", ""))
        return min(stored, int(first.timestamp() * 1000))
    except (ValueError, OverflowError):
        return stored


async def place_group(
    clients: Clients, topology: Topology, group: str, topic: str, start: Start
) -> None:
    """Make sure that the group's place in `topic` is stored, for all partitions at once.

    Does nothing when the group has a place already. Several members may do this at the same time
    and none can make another's messages disappear: the broker takes such a commit only while the
    group has no live member, and the offsets are looked up *before* making sure that there is no
    place yet, so whatever is published after another member has placed the group lies above them.
    """
    check(start)
    tps = await partitions_of(topology, topic)
    async with reader(clients, group) as consumer, asyncio.timeout(clients.options.request_timeout):
        for _ in range(REFUSALS):
            places = await places_for(clients, consumer, tps, start)
            if await committed(consumer, tps):
                return
            try:
                return await commit(consumer, {tp: (place, "") for tp, place in places.items()})
            except REFUSED:
                # The group has come alive: its member has placed it, or is about to.
                pass
            except kafka.KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(PAUSE)
        log.debug("%s has live members and no place in %s: left to them", group, topic)
