"""Delays: published delayed records and their mover, and the retry topics of groups.

Kafka cannot deliver a record later, and a log is read from its head. So a record waits in a topic
whose records all wait about equally long, with its due time in a header (`DUE`).

A delayed publish waits in topics that the whole cluster shares, one for each of a few waiting times
(`TIERS`). It starts in the longest tier that leaves it `MARGIN_SECONDS`, and moves down from there.
The records of the last tier are held in memory until they are due, and are then published to their
own topic, earliest due time first. Every process that has a topic in use offers to move them; at
most `MAX_MOVERS` do, as one consumer group.

A nacked record is copied into a retry topic of its group, one for each range of delays (`RANGES`).
The group's members read these topics ahead and hold the records in memory until they are due. Short
delays wait for long ones only beyond that window, and no group waits for another.

Nothing expires in any of these topics: members delete what they have settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.driver import (
    Listener,
    Nack,
    Outcome,
    Received,
    Record,
    logger,
    new_id,
    progress,
    supervise,
)

from .client.compat import TopicPartition, kafka
from .connection import Clients, lone_consumer
from .group.member import GroupMember
from .messages import DUE, now_ms
from .publisher import Publisher
from .topology import Groups, TopicPlan, Topology, delay_settings

if TYPE_CHECKING:
    from .options import KafkaOptions

log = logger("anymq.kafka")

AUXILIARY = "_anymq."
"""The prefix of groups that are anymq's own."""
GROUP = "_anymq.delay"
"""The group of the movers."""
_DAY = 86_400
TIERS = (
    ("soon", 0), ("2s", 2), ("10s", 10), ("1m", 60), ("10m", 600), ("1h", 3600),
    ("6h", 21_600), ("1d", _DAY), ("5d", 5 * _DAY),
)  # fmt: skip
"""The last segments of the tiers' topics, and the seconds that a record waits in each."""
TOPICS = tuple(f"{GROUP}.{name}" for name, _ in TIERS)
_QUEUES = [TopicPartition(topic, 0) for topic in TOPICS]
MARGIN_SECONDS = 1.0

TARGET, AT = "anymq-delay-to", "anymq-delay-at"
"""Headers of a delayed record: its topic, and its due time in milliseconds since the epoch.

`DUE` is the time when it may leave its tier."""
PURGED = "_anymq.purged."
"""The prefix, before the name of a topic, of the group that records the topic's last purge.

Its committed offset in a tier is the one below which the topic's records are purged. Each record
that leaves a tier reads it, which is more often than such offsets expire."""

RANGES = (("5s", 5.0), ("1m", 60.0), ("15m", 900.0), ("long", math.inf))
"""The last segments of a group's retry topics, and the longest delay in seconds of each."""

MAX_MOVERS = 3
MOVER_CHECK_SECONDS = 5.0
READ_LIMIT, READ_SECONDS = 500, 2.0
WINDOW, WINDOW_BYTES = 10_000, 8 * 1024 * 1024
RETRY_PAUSE_SECONDS = 0.2
REFUSED_SECONDS = 60.0
"""Until a record is tried again that its topic has refused, or whose topic does not exist."""
CLOSE_MOVE_SECONDS, CLOSE_COMMIT_SECONDS, CLOSE_SECONDS = 0.5, 0.5, 0.5
_LEGAL = re.compile(r"[A-Za-z0-9._-]+")
_TARGET = re.compile(rf"(?!__)(?!_anymq\.){_LEGAL.pattern}")
_MAX_NAME = 249
_MAX_SUFFIX = 30


class DelayMover:
    """The topics of delayed records, and this process's task that moves due records."""

    def __init__(self, clients: Clients, topology: Topology, publisher: Publisher) -> None:
        self._clients = clients
        self._topology = topology
        self._groups = Groups(topology)
        self._publisher = publisher
        self._created = False
        self._hurry = asyncio.Event()
        self._moving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Offer to move records, after some seconds: a short-lived process never joins."""
        if self._task is None:
            self._task = supervise(self._run(), name="anymq-kafka-delay")

    async def prepare(self, *, create: bool) -> None:
        """Make sure that the tiers exist. Call it before a delayed record is published."""
        if self._created:
            return
        if create:
            options = self._clients.options
            config = delay_settings(body=options.max_body)
            plans = [TopicPlan(topic, 1, options.replication, config) for topic in TOPICS]
            await self._topology.create(plans)
        elif missing := await self._topology.missing(TOPICS):
            raise kafka.UnknownTopicOrPartitionError(
                "delayed publishing needs these topics, and may not create them: "
                + ", ".join(missing)
            )
        self._created = True
        self._hurry.set()
        self.start()

    def forget(self) -> None:
        """Check again, before the next delayed record, whether the tiers exist."""
        self._created = False

    async def purge(self, native: str) -> None:
        """Drop all delayed records of the topic `native`."""
        if await self._topology.missing(TOPICS):
            return
        async with lone_consumer(self._clients) as consumer:
            ends = await consumer.end_offsets(_QUEUES)
        await self._groups.commit(PURGED + native, ends)

    async def aclose(self) -> None:
        """Stop moving, within about 2 s."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            # Records that are copied and not yet settled would be delivered twice.
            async with asyncio.timeout(CLOSE_MOVE_SECONDS), self._moving:
                task.cancel()
        except TimeoutError:
            log.debug("moving delayed records did not end in time; it is cancelled")
        finally:
            task.cancel()
        await asyncio.wait((task,))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOVER_CHECK_SECONDS * random.uniform(0.5, 1)):
                    await self._hurry.wait()
            self._hurry.clear()
            try:
                if await self._is_needed():
                    await self._move_all()
            except Exception:
                # After any error, because the records must not wait without end.
                log.debug("moving delayed records failed; trying again", exc_info=True)

    async def _is_needed(self) -> bool:
        if await self._topology.missing(TOPICS):
            return False
        group = await self._groups.describe(GROUP)
        return group is None or len(group.members) < MAX_MOVERS

    async def _move_all(self) -> None:
        """Move due records until an error ends it."""
        member = GroupMember(
            GROUP,
            TOPICS,
            TOPICS,
            self._clients,
            self._topology,
            listener=Listener(),
            window=WINDOW,
            window_bytes=WINDOW_BYTES,
        )
        time = asyncio.get_running_loop().time
        try:
            await member.join()
            watchdog = progress.Progress(member, time())
            while True:
                if received := await member.receive(READ_LIMIT, READ_SECONDS):
                    watchdog.moved(time())
                    async with self._moving:
                        await self._move(member, received)
                else:
                    await watchdog.look(time())
        finally:
            await member.aclose(CLOSE_COMMIT_SECONDS, CLOSE_SECONDS)

    async def _move(self, member: GroupMember, received: Sequence[Received]) -> None:
        """Copy each record to its next topic, and settle those whose copies were confirmed."""
        dropped = await self._dropped(received)
        member.settle(dropped)
        received = [item for item in received if item not in dropped]
        outcomes = await self._publish([_next(item) for item in received])
        refused = [number for number, outcome in enumerate(outcomes) if _is_final(outcome)]
        if refused:
            log.debug("%d delayed records were refused; they wait on", len(refused))
            tier, due = _tier_until(now_ms() + REFUSED_SECONDS * 1000)
            copies = [_waiting(received[number], tier, due) for number in refused]
            for number, outcome in zip(refused, await self._publish(copies), strict=True):
                outcomes[number] = outcome
        failed: list[Received] = []
        stored: list[Received] = []
        for item, outcome in zip(received, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failed.append(item)
            else:
                stored.append(item)
        member.settle(stored)
        if failed:
            member.release(failed)
            await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def _publish(self, copies: Sequence[tuple[str, Record]]) -> list[Outcome]:
        topics, records = [topic for topic, _ in copies], [record for _, record in copies]
        return await self._publisher.publish(topics, records)

    async def _dropped(self, received: Sequence[Received]) -> list[Received]:
        """Return the records that were purged, and those that name no topic of an application."""
        targets = {item.headers.get(TARGET, "") for item in received}
        purged = {
            target: await self._groups.committed(PURGED + target, _QUEUES)
            for target in targets
            if is_target(target)
        }

        def is_dropped(item: Received) -> bool:
            target = item.headers.get(TARGET, "")
            if not is_target(target):
                log.seldom(
                    "target",
                    logging.WARNING,
                    "the delayed record at %s is dropped: its target %r is not the name of a topic",
                    item.position,
                    target,
                )
                return True
            mark = purged[target].get(TopicPartition(item.native.topic, item.native.partition))
            return mark is not None and item.native.offset < mark.offset

        return [item for item in received if is_dropped(item)]


def is_target(native: str) -> bool:
    """Whether delayed records may be published to the topic: not one of Kafka's or anymq's own.

    Any publisher may have written to the tiers, so the mover checks each record.
    """
    return bool(_TARGET.fullmatch(native)) and len(native) <= _MAX_NAME and "._" not in native


def delayed_copy(native: str, record: Record) -> tuple[str, Record]:
    """Return the tier in which `record`, published to `native`, waits first, and its copy there."""
    assert record.deliver_at is not None
    # Rounded up, so that it is never early.
    at = math.ceil(record.deliver_at * 1000)
    tier, due = _tier_until(at)
    copy = record.with_headers({TARGET: native, AT: str(at), DUE: str(due)})
    copy.deliver_at = None
    return tier, copy


def _tier_until(at: float) -> tuple[str, int]:
    """Return the tier in which to wait next for `at`, and until when. Both are in milliseconds."""
    now = now_ms()
    left = (at - now) / 1000
    for topic, (_, wait) in reversed(tuple(zip(TOPICS, TIERS, strict=True))):
        if wait and wait + MARGIN_SECONDS <= left:
            return topic, int(now + wait * 1000)
    return TOPICS[0], math.ceil(at)


def _next(item: Received) -> tuple[str, Record]:
    """Return the next topic of a record whose wait in a tier has ended, and its copy there.

    Only the last tier leads to the record's own topic, also for a late record: so all due records
    are published in the order of their due times.
    """
    at = _number(item, AT)
    if at > now_ms() or item.native.topic != TOPICS[0]:
        return _waiting(item, *_tier_until(at))
    return item.headers[TARGET], _copy(item, without=(TARGET, AT))


def _waiting(item: Received, tier: str, due: int) -> tuple[str, Record]:
    record = _copy(item)
    record.headers[DUE] = str(due)
    return tier, record


def _copy(item: Received, without: Sequence[str] = ()) -> Record:
    headers = {name: value for name, value in item.headers.items() if name not in without}
    return Record(
        topic="",
        id="",
        unique=new_id(),
        body=item.body,
        key=item.key,
        headers=headers,
        original=item,
    )


def _number(item: Received, name: str) -> int:
    text = item.headers.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _is_final(outcome: Outcome) -> bool:
    """Whether a record is refused because of itself or its topic, so that others may be stored."""
    if isinstance(outcome, kafka.UnknownTopicOrPartitionError):
        return True
    return isinstance(outcome, kafka.KafkaError) and not outcome.retriable


def retry_topics(native_group: str) -> tuple[str, ...]:
    """Return the names of the retry topics of a group, in the order of `RANGES`.

    Kafka refuses two topics whose names differ only in `.` and `_`. So the names for a group with
    an underscore contain a hash of its name. If the group's name is not legal for a topic, or too
    long, the hash takes its place.
    """
    digest = hashlib.sha256(native_group.encode()).hexdigest()
    if not _LEGAL.fullmatch(native_group) or len(native_group) > _MAX_NAME - _MAX_SUFFIX:
        stem = f"_anymq.{digest[:40]}._retry"
    elif "_" in native_group:
        stem = f"{native_group}._retry.{digest[:8]}"
    else:
        stem = f"{native_group}._retry"
    return tuple(f"{stem}.{name}" for name, _ in RANGES)


def retry_plans(topics: Sequence[str], options: KafkaOptions) -> list[TopicPlan]:
    """Return how to create the retry topics."""
    config = delay_settings(body=options.max_body)
    return [
        TopicPlan(name, options.retry_partitions, options.replication, config) for name in topics
    ]


def retry_topic_for(topics: Sequence[str], delay: float) -> str:
    """Return the one of a group's retry `topics` that takes a delay of `delay` seconds."""
    return next(
        topic for topic, (_, longest) in zip(topics, RANGES, strict=True) if delay <= longest
    )


def retry_copy(nack: Nack) -> Record:
    """Return the copy of a nacked record for a retry topic, with its due time."""
    # Rounded up, so that it is never early.
    due = int(now_ms() + nack.delay * 1000) + 1
    return nack.copy.with_headers({DUE: str(due)})
