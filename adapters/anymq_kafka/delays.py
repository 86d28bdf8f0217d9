"""Delayed publishing: topics in which records wait, and the mover that takes them on when due.

Kafka cannot deliver a record later, and a log can only be read from its head. So there is one topic
for each of a few waiting times (`TIERS`), shared by all topics of the cluster: all records of such
a topic wait equally long, so its head is always the next. A record goes to the longest wait that
leaves it `MARGIN`, and from there down, until it is in the last topic, whose records are held in
memory until they are due, soonest first, and then published to their own topic. Nothing expires.

Every process that has a topic in use takes part: up to `MOVERS` of them, as one consumer group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import re
from collections.abc import Sequence

from anymq.driver import Outcome, Received, Record, logger, new_id, supervise

from .client.internals import TopicPartition, kafka
from .connection import Clients
from .group.member import Reader
from .group.pending import now_ms
from .groups import Groups
from .messages import DUE
from .positions import reader
from .publisher import Item, Publisher
from .topology import Plan, Topology, settings

log = logger("anymq.kafka")

AUXILIARY = "_anymq."
GROUP = "_anymq.delay"
_DAY = 86_400
TIERS = (
    ("soon", 0), ("2s", 2), ("10s", 10), ("1m", 60), ("10m", 600), ("1h", 3600),
    ("6h", 21_600), ("1d", _DAY), ("5d", 5 * _DAY),
)  # fmt: skip
"""The topics' last segments, and how many seconds a record waits there."""
TOPICS = tuple(f"{GROUP}.{name}" for name, _ in TIERS)
_QUEUES = [TopicPartition(topic, 0) for topic in TOPICS]
MARGIN = 1.0

TARGET, AT = "anymq-delay-to", "anymq-delay-at"
"""Headers of a waiting record: its topic, and when it is due, in milliseconds since the epoch.
`DUE` says when it may leave the tier."""
PURGED = "_anymq.purged."
"""The group of this name and a topic's has committed, for each tier, the offset below which all of
that topic has been purged. It is looked at whenever a record leaves a tier, that is more often
than such offsets expire."""

MOVERS = 3
LOOK = 5.0
READ, WAIT = 500, 2.0
WINDOW, WINDOW_BYTES = 10_000, 8 * 1024 * 1024
AGAIN = 0.2
# A record that its topic refuses, or whose topic is gone, is tried again this many seconds later.
REFUSED = 60.0
CLOSE_FORWARD, CLOSE_COMMIT, CLOSE_GRACE = 0.5, 0.5, 0.5
_SEGMENT_BYTES = 64 * 1024 * 1024
_TARGET = re.compile(r"(?!__)(?!_anymq\.)[A-Za-z0-9._-]+")
_LONGEST = 249


class Delays:
    """Stores delayed records, and takes part in moving them once `wake` has been called."""

    def __init__(self, clients: Clients, topology: Topology, publisher: Publisher) -> None:
        self._clients = clients
        self._topology = topology
        self._groups = Groups(topology)
        self._publisher = publisher
        self._made = False
        self._hurry = asyncio.Event()
        self._forwarding = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Take part in moving, from soon on: not for processes that are gone at once."""
        if self._task is None:
            self._task = supervise(self._run(), name="anymq-kafka-delay")

    async def make(self, *, create: bool) -> None:
        """Make sure that the topics to wait in are there; called before the first such record."""
        if self._made:
            return
        if create:
            await self._topology.create(_plans(self._clients))
        elif missing := await self._topology.missing(TOPICS):
            raise kafka.UnknownTopicOrPartitionError(
                "delayed publishing needs these topics, and may not create them: "
                + ", ".join(missing)
            )
        self._made = True
        self._hurry.set()
        self.wake()

    def forget(self) -> None:
        """The topics are not there, it was said."""
        self._made = False

    async def purge(self, native: str) -> None:
        """Drop all that waits for this topic."""
        if await self._topology.missing(TOPICS):
            return
        async with reader(self._clients) as consumer:
            ends = await consumer.end_offsets(_QUEUES)
        await self._groups.commit(PURGED + native, ends)

    async def aclose(self) -> None:
        """Take no more part; bounded."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            # What is copied and not settled would be delivered twice.
            async with asyncio.timeout(CLOSE_FORWARD), self._forwarding:
                task.cancel()
        except TimeoutError:
            log.debug("moving delayed records does not end in time")
        finally:
            task.cancel()
        await asyncio.wait((task,))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK * random.uniform(0.5, 1)):
                    await self._hurry.wait()
            self._hurry.clear()
            try:
                if await self._is_needed():
                    await self._move()
            except Exception:
                # Whatever it was: what waits here must not wait for ever.
                log.debug("moving delayed records failed", exc_info=True)

    async def _is_needed(self) -> bool:
        if await self._topology.missing(TOPICS):
            return False
        group = await self._groups.describe(GROUP)
        return group is None or len(group.members) < MOVERS

    async def _move(self) -> None:
        """Move what is due, until something fails."""
        member = Reader(
            GROUP,
            TOPICS,
            TOPICS,
            self._clients,
            self._topology,
            window=WINDOW,
            window_bytes=WINDOW_BYTES,
        )
        try:
            await member.join()
            while True:
                if received := await member.receive(READ, WAIT):
                    async with self._forwarding:
                        await self._forward(member, received)
        finally:
            await member.aclose(CLOSE_COMMIT, CLOSE_GRACE)

    async def _forward(self, member: Reader, received: Sequence[Received]) -> None:
        """Copy each to where it belongs now, and settle what was confirmed."""
        dropped = await self._dropped(received)
        member.done(dropped)
        received = [item for item in received if item not in dropped]
        outcomes = await self._publisher.publish([_next(item) for item in received])
        refused = [number for number, outcome in enumerate(outcomes) if _is_final(outcome)]
        if refused:
            log.debug("%d delayed records were refused and wait on", len(refused))
            tier, due = _wait_until(now_ms() + REFUSED * 1000)
            copies = [_waiting(received[number], tier, due) for number in refused]
            for number, outcome in zip(refused, await self._publisher.publish(copies), strict=True):
                outcomes[number] = outcome
        failed: list[Received] = []
        stored: list[Received] = []
        for item, outcome in zip(received, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failed.append(item)
            else:
                stored.append(item)
        member.done(stored)
        if failed:
            member.give_back(failed)
            await asyncio.sleep(AGAIN)

    async def _dropped(self, received: Sequence[Received]) -> list[Received]:
        """Return those that were purged, and what is none of ours."""
        targets = {item.headers.get(TARGET, "") for item in received}
        purged = {
            target: await self._groups.committed(PURGED + target, _QUEUES)
            for target in targets
            if is_topic(target)
        }

        def gone(item: Received) -> bool:
            target = item.headers.get(TARGET, "")
            if not is_topic(target):
                log.seldom(
                    "target",
                    logging.WARNING,
                    "the delayed record at %s is dropped: it is to go to %r, where no topic is",
                    item.position,
                    target,
                )
                return True
            mark = purged[target].get(TopicPartition(item.native.topic, item.native.partition))
            return mark is not None and item.native.offset < mark.offset

        return [item for item in received if gone(item)]


def is_topic(native: str) -> bool:
    """Whether a delayed record may go there: Kafka's own topics, and anymq's, are not published to.

    Any publisher may have written to the topics in which records wait.
    """
    return bool(_TARGET.fullmatch(native)) and len(native) <= _LONGEST and "._" not in native


def delayed(native: str, record: Record) -> Item:
    """Return the tier, and what to store there, for a record that is not due yet."""
    assert record.deliver_at is not None
    # Rounded up: never early.
    at = math.ceil(record.deliver_at * 1000)
    tier, due = _wait_until(at)
    extra = {TARGET: native, AT: str(at), DUE: str(due)}
    item = record.with_headers(extra)
    item.deliver_at = None
    return tier, item


def _wait_until(at: float) -> tuple[str, int]:
    """Return the tier to wait in for something at `at`, and until when (milliseconds)."""
    now = now_ms()
    left = (at - now) / 1000
    for topic, (_, wait) in reversed(tuple(zip(TOPICS, TIERS, strict=True))):
        if wait and wait + MARGIN <= left:
            return topic, int(now + wait * 1000)
    return TOPICS[0], math.ceil(at)


def _next(item: Received) -> Item:
    """Where a record that has waited long enough here goes: on, or to its own topic.

    That is reached from the last tier only, even by what is late: there it takes its place among
    all that is due.
    """
    at = _number(item, AT)
    if at > now_ms() or item.native.topic != TOPICS[0]:
        return _waiting(item, *_wait_until(at))
    return item.headers[TARGET], _record(item, without=(TARGET, AT))


def _waiting(item: Received, tier: str, due: int) -> Item:
    record = _record(item)
    record.headers[DUE] = str(due)
    return tier, record


def _record(item: Received, without: Sequence[str] = ()) -> Record:
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
    """Whether a record is not taken, and others are: because of itself, or of its topic."""
    if isinstance(outcome, kafka.UnknownTopicOrPartitionError):
        return True
    return isinstance(outcome, kafka.KafkaError) and not outcome.retriable


def _plans(clients: Clients) -> list[Plan]:
    options = clients.options
    config = settings(body=options.max_body, retention=-1) | {"segment.bytes": str(_SEGMENT_BYTES)}
    return [Plan(topic, 1, options.replication, config) for topic in TOPICS]
