"""Start positions as offsets, the first commit of a new group, and browsing without a group."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime

from anymq.driver import ConfigurationError, Received, Start, SubscribeSpec, logger

from .client.compat import AIOKafkaConsumer, TopicPartition, kafka
from .client.fetcher import FetchedRecords, RecordFetcher
from .client.internals import commit_offsets, committed
from .connection import Clients, lone_consumer
from .group.committer import REFUSED
from .messages import KafkaReceived, UnreadableBatch
from .topology import Topology, partitions_of

log = logger("anymq.kafka")

START_ATTEMPTS = 10
START_PAUSE_SECONDS = 0.2
BROWSE_LIMIT, BROWSE_READ_SECONDS = 500, 0.25
_POSITION = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")

Offsets = dict[TopicPartition, int]


def check_start(start: Start) -> None:
    """Raise `ConfigurationError` if `start` is text that names no start position."""
    if isinstance(start, datetime) or start in ("earliest", "latest") or _POSITION.fullmatch(start):
        return
    raise ConfigurationError(
        f"{start!r} is no start position: give earliest, latest, an aware datetime or a "
        'position "partition:offset"'
    )


async def start_offsets(
    clients: Clients, consumer: AIOKafkaConsumer, tps: Collection[TopicPartition], start: Start
) -> Offsets:
    """Return the offset of `start` in each of `tps`, which are all partitions of one topic."""
    check_start(start)
    if start == "earliest":
        return dict(await consumer.beginning_offsets(tps))
    # Looked up first, so that every record stored from now on is above these ends.
    ends: Offsets = dict(await consumer.end_offsets(tps))
    if start == "latest":
        return ends
    if isinstance(start, datetime):
        return await _since(consumer, ends, int(start.timestamp() * 1000))
    match = _POSITION.fullmatch(start)
    assert match is not None
    topic = next(iter(tps)).topic
    tp, offset = TopicPartition(topic, int(match[1])), int(match[2])
    if offset > ends.get(tp, -1):
        raise ConfigurationError(f"there is no position {start!r} in {topic}")
    time_ms = (await times_at(clients, {tp: offset})).get(tp) if offset < ends[tp] else None
    offsets = ends if time_ms is None else await _since(consumer, ends, time_ms)
    return offsets | {tp: offset}


async def _since(consumer: AIOKafkaConsumer, ends: Offsets, time_ms: int) -> Offsets:
    """Return the offsets of the first records at `time_ms` or later; the ends where none is."""
    found = await consumer.offsets_for_times(dict.fromkeys(ends, max(0, time_ms)))
    return {tp: found[tp].offset if found.get(tp) else end for tp, end in ends.items()}


async def times_at(clients: Clients, offsets: Offsets) -> dict[TopicPartition, int]:
    """Return the time, in milliseconds, of the record at each offset or next after it."""
    found: dict[TopicPartition, int] = {}
    if not offsets:
        return found
    async with lone_consumer(clients) as consumer:
        fetcher = RecordFetcher(consumer, clients.options.max_decompressed)
        for tp, offset in offsets.items():
            consumer.assign([tp])
            consumer.seek(tp, offset)
            for _, records in await fetcher.read(clients.options.request_timeout / 2, 1):
                found[tp] = _published_ms(records[0])
    return found


def _published_ms(record: KafkaReceived) -> int:
    """Return the time when a record, or the original of a retry copy, was published."""
    stored = record.timestamp_ms
    if not record.headers.due():
        return stored
    try:
        first = datetime.fromisoformat(record.headers.get("ce_time", ""))
        return min(stored, int(first.timestamp() * 1000))
    except (ValueError, OverflowError):
        return stored


async def initialize_group(clients: Clients, topology: Topology, spec: SubscribeSpec) -> None:
    """Commit the start position of a new group, for all partitions of the topic at once.

    Does nothing if the group has committed offsets. Several members may call this at once, and none
    can skip another's messages. The broker accepts such a commit only while the group has no live
    member. And the start offsets are looked up *before* the check that the group has no commit. So
    all that is published after another member's commit is above them.
    """
    check_start(spec.start)
    group, topic = spec.native_group, spec.topic.native
    tps = await partitions_of(topology, topic)
    timeout = clients.options.request_timeout
    async with lone_consumer(clients, group) as consumer, asyncio.timeout(timeout):
        for _ in range(START_ATTEMPTS):
            offsets = await start_offsets(clients, consumer, tps, spec.start)
            if await committed(consumer, tps):
                return
            try:
                return await commit_offsets(consumer, {tp: (o, "") for tp, o in offsets.items()})
            except REFUSED:
                # Another member has joined, which has committed, or is about to.
                pass
            except kafka.KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(START_PAUSE_SECONDS)
        log.debug("group %s has live members but no offsets in %s: left to them", group, topic)


async def browse(
    clients: Clients, topology: Topology, topic: str, start: Start
) -> AsyncIterator[Sequence[Received]]:
    """Yield the records of `topic` from `start` to its end as of this call."""
    check_start(start)
    tps = await partitions_of(topology, topic)
    async with lone_consumer(clients) as consumer:
        async with asyncio.timeout(clients.options.request_timeout):
            offsets = await start_offsets(clients, consumer, tps, start)
            ends: Offsets = await consumer.end_offsets(tps)
        left = {tp: ends[tp] for tp in tps if offsets[tp] < ends[tp]}
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, offsets[tp])
        fetcher = RecordFetcher(consumer, clients.options.max_decompressed)
        while left:
            for tp, records in await _read_more(clients, consumer, fetcher, left):
                if isinstance(records[0], UnreadableBatch):
                    log.warning("%s is left out: %s", tp.topic, records[0].reason)
                elif batch := [record for record in records if record.offset < ends[tp]]:
                    yield batch
            # The position counts, because the last offset may hold the marker of a transaction.
            for tp in [tp for tp in left if not fetcher.is_open(tp)]:
                if await consumer.position(tp) >= ends[tp]:
                    consumer.pause(tp)
                    del left[tp]


async def _read_more(
    clients: Clients, consumer: AIOKafkaConsumer, fetcher: RecordFetcher, left: Offsets
) -> FetchedRecords:
    """Return the next records; none if only the position has moved, over markers."""
    found: FetchedRecords = []
    async with asyncio.timeout(clients.options.request_timeout):
        before = {tp: await consumer.position(tp) for tp in left}
        while not found and before == {tp: await consumer.position(tp) for tp in left}:
            found = await fetcher.read(BROWSE_READ_SECONDS, BROWSE_LIMIT)
    return found
