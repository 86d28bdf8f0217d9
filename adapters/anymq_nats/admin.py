"""Topics and groups for `Broker.admin`: list, describe, seek, purge and delete."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import nats.js.errors

from anymq.driver import (
    GroupInfo,
    PartitionInfo,
    PartitionState,
    Received,
    Start,
    StateError,
    TopicInfo,
    TopicSpec,
    ordered,
)

from .client.protocol import parse_headers
from .connection import Connection
from .jetstream.log import NANO, READ_MESSAGES, READ_SECONDS, Config, StreamReader, starting
from .jetstream.presence import members
from .jetstream.schema import (
    EVERYONE,
    cell_subject,
    cells_stream,
    consumer_name,
    decode,
    is_copy,
    is_reserved,
    later_pattern,
    later_stream,
    private_pattern,
    private_subject,
)
from .ordered import StreamLog
from .positions import count, first_sequence, last_sequence
from .publisher import Publisher
from .topology import (
    CREATED_BY_ANYMQ,
    GROUP,
    Marker,
    Stream,
    is_ordered,
    purge,
    save_consumer,
    stream_config,
    subjects_of,
)

_START_FIELDS = ("deliver_policy", "opt_start_seq", "opt_start_time")

# List


async def topic_names(connection: Connection) -> list[str]:
    """Return the subjects of all streams that could be topics."""
    configs = [item["config"] for item in await _pages(connection, "STREAM.LIST", "streams")]
    subjects = {subject for config in configs for subject in config.get("subjects") or ()}
    return sorted(subject for subject in subjects if _is_topic(subject))


async def group_names(connection: Connection, stream: Stream) -> list[str]:
    """Return the native names of the topic's groups."""
    return [_group_name(info["config"]) for info in await _consumers(connection, stream)]


def _is_topic(subject: str) -> bool:
    return not (is_reserved(subject) or "*" in subject or ">" in subject)


async def _pages(connection: Connection, verb: str, field: str) -> list[Config]:
    """Return the items of all pages of a list."""
    found: list[Config] = []
    while True:
        page = await connection.api(verb, {"offset": len(found)})
        items = page.get(field) or []
        found += items
        if not items or len(found) >= int(page.get("total", 0)):
            return found


async def _consumers(connection: Connection, stream: Stream) -> list[Config]:
    """Return the server's information on the durable consumers of the topic."""
    found = await _pages(connection, f"CONSUMER.LIST.{stream.name}", "consumers")
    return [info for info in found if _receives(info["config"], stream)]


def _receives(config: Config, stream: Stream) -> bool:
    filters = subjects_of(config)
    return bool(config.get("durable_name")) and (not filters or stream.subject in filters)


def _group_name(config: Config) -> str:
    """Return the native name of the group that the durable consumer belongs to."""
    metadata = config.get("metadata") or {}
    if GROUP in metadata:
        return str(metadata[GROUP])
    name = str(config["name"])
    return decode(name) if CREATED_BY_ANYMQ in metadata else name


# Describe


async def describe_topic(connection: Connection, spec: TopicSpec) -> TopicInfo:
    """Return the statistics of a topic; raises `NotFoundError`."""
    stream = Stream.of(await stream_config(connection, spec.native), spec.native)
    details = await asyncio.gather(
        *[
            connection.api(f"STREAM.INFO.{stream.name}", {"subjects_filter": pattern})
            for pattern in stream.patterns
        ]
    )
    state, config = details[0]["state"], details[0]["config"]
    counts: dict[str, int] = {}
    for found in details:
        counts |= found["state"].get("subjects") or {}
    partitions = await asyncio.gather(
        *[_partition(connection, stream, n, counts) for n in range(stream.partitions)]
    )
    times = [time for _, time in partitions if time is not None]
    delayed = [later_pattern(stream.subject, EVERYONE)]
    return TopicInfo(
        native=spec.native,
        partitions=tuple(info for info, _ in partitions),
        messages=sum(info.messages or 0 for info, _ in partitions),
        bytes=int(state["bytes"]) if stream.alone else None,
        oldest=min(times, default=None),
        delayed=await count(connection, stream.later, delayed) if stream.schedules else 0,
        retention=config["max_age"] / NANO or None,
        retention_bytes=config["max_bytes"] if config["max_bytes"] > 0 and stream.alone else None,
    )


async def _partition(
    connection: Connection, stream: Stream, number: int, counts: Mapping[str, int]
) -> tuple[PartitionInfo, datetime | None]:
    """Return the partition, and the time of its oldest message."""
    subject = stream.partition(number)
    first, last = await asyncio.gather(
        _message(connection, stream.name, {"seq": 1, "next_by_subj": subject}),
        _message(connection, stream.name, {"last_by_subj": subject}),
    )
    info = PartitionInfo(
        number=number,
        messages=counts.get(subject, 0),
        first=str(first["seq"]) if first else None,
        last=str(last["seq"]) if last else None,
    )
    return info, datetime.fromisoformat(first["time"]) if first else None


async def _message(connection: Connection, name: str, which: Mapping[str, Any]) -> Config | None:
    """Return one message of the stream `name`; None if there is none."""
    try:
        found = await connection.api(f"STREAM.MSG.GET.{name}", dict(which))
    except nats.js.errors.NotFoundError:
        return None
    message: Config = found["message"]
    return message


async def describe_group(
    connection: Connection, publisher: Publisher, stream: Stream, spec: TopicSpec, native_group: str
) -> GroupInfo:
    """Return the statistics of a group; raises `NotFoundError`."""
    name = consumer_name(native_group)
    info, present = await asyncio.gather(
        connection.api(f"CONSUMER.INFO.{stream.name}.{name}"),
        members(connection, stream.name, name),
    )
    if not is_ordered(info["config"]):
        return GroupInfo(
            native=native_group,
            ordered=False,
            members=tuple(present),
            **await _unordered(connection, stream, info),
        )
    states = await ordered.state(StreamLog(connection, publisher, Marker.of(info, stream)))
    lags, oldest = await _behind(connection, stream, states)
    return ordered.describe(
        spec, native_group, states=states, lags=lags, lag_seconds=oldest, members=present
    )


async def _unordered(connection: Connection, stream: Stream, info: Config) -> dict[str, Any]:
    name = info["name"]
    undelivered, unsettled = int(info["num_pending"]), int(info["num_ack_pending"])
    # Without schedules the consumer counts waiting messages among those in flight.
    waiting = (
        await count(connection, stream.later, [later_pattern(stream.subject, name)])
        if stream.schedules
        else None
    )
    return {
        "lag": undelivered + unsettled + (waiting or 0),
        "lag_seconds": await _oldest_unsettled(connection, stream, info, waiting or 0),
        "in_flight": None if waiting is None else unsettled,
        "waiting": waiting,
        "oldest_pending": None if unsettled else 0.0,
    }


async def _oldest_unsettled(
    connection: Connection, stream: Stream, info: Config, waiting: int
) -> float:
    """Return the age in seconds of the oldest message that a consumer has not settled."""
    unsettled = int(info["num_ack_pending"])
    candidates: list[tuple[str, int, str]] = []
    if unsettled or int(info["num_pending"]):
        first = int(info["ack_floor" if unsettled else "delivered"]["stream_seq"]) + 1
        filters = subjects_of(info["config"]) or [">"]
        candidates += [(stream.name, first, each) for each in filters]
    if waiting:
        candidates.append((stream.later, 1, later_pattern(stream.subject, info["name"])))
    found = await asyncio.gather(
        *[
            _message(connection, name, {"seq": first, "next_by_subj": subject})
            for name, first, subject in candidates
        ]
    )
    now = datetime.fromisoformat(info["ts"])
    return max((_age(message, now) for message in found if message), default=0.0)


def _age(message: Config, now: datetime) -> float:
    """Return the age of `message` in seconds; that of a copy counts from its first publish."""
    stored = datetime.fromisoformat(message["time"])
    if is_copy(message["subject"]):
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        with suppress(ValueError):
            stored = min(stored, _aware(headers.get("ce-time", "")))
    return max(0.0, (now - stored).total_seconds())


def _aware(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


async def _behind(
    connection: Connection, stream: Stream, states: Mapping[int, PartitionState]
) -> tuple[dict[int, int], float]:
    """Return the lag of each partition, and the age in seconds of the oldest unsettled record."""
    counts = await asyncio.gather(*[_lag(connection, stream, n, at) for n, at in states.items()])
    lags = dict(zip(states, counts, strict=True))
    ages = [
        await _oldest_in_partition(connection, stream, number, state)
        for number, state in states.items()
        if lags[number]
    ]
    return lags, max(ages, default=0.0)


async def _lag(connection: Connection, stream: Stream, number: int, state: PartitionState) -> int:
    first = int(state.cursor) + 1
    after = await count(connection, stream.name, [stream.partition(number)], first)
    return max(0, after - len(state.done))


async def _oldest_in_partition(
    connection: Connection, stream: Stream, number: int, state: PartitionState
) -> float:
    """Return the age in seconds of the oldest unsettled record; 0 if there is none."""
    subjects, cursor = [stream.partition(number)], int(state.cursor)
    reader = StreamReader(connection, stream.name, subjects, last=cursor)
    try:
        await reader.open()
        while reader.pending:
            taken = await reader.take(READ_MESSAGES, READ_SECONDS)
            if not taken:
                await reader.open()
            for record in taken:
                if record.position not in state.done:
                    return max(0.0, connection.server_time() - (record.time or 0.0))
    finally:
        reader.close()
    return 0.0


# Seek, purge and delete


async def seek(connection: Connection, stream: Stream, native_group: str, to: Start) -> None:
    """Replace the group's durable consumer by one at `to`; raises `NotFoundError`, `StateError`.

    The new consumer is another incarnation, with other cells. If the process is killed between the
    two steps, there is no group, and the next member to subscribe creates it.
    """
    name = consumer_name(native_group)
    config: Config = (await _without_members(connection, stream, name))["config"]
    first = await first_sequence(connection, stream.name, to)
    kept = {key: value for key, value in config.items() if key not in _START_FIELDS}
    await _delete_consumer(connection, stream, name)
    await _purge_group(connection, stream, name)
    await save_consumer(connection, stream, {**kept, **starting(first)}, "create")


async def purge_topic(connection: Connection, stream: Stream) -> None:
    """Delete all messages of the topic, also delayed and waiting ones."""
    if stream.apart:
        await purge(connection, stream.later)
    if stream.alone:
        await purge(connection, stream.name)
        return
    waiting = [private_pattern(stream.subject), later_pattern(stream.subject)]
    for pattern in (*stream.patterns, *waiting):
        await purge(connection, stream.name, pattern)


async def delete_group(connection: Connection, stream: Stream, native_group: str) -> None:
    """Delete the group and its waiting messages; raises `StateError` if it has live members."""
    name = consumer_name(native_group)
    try:
        await _without_members(connection, stream, name)
    except nats.js.errors.NotFoundError:
        return
    await _delete_consumer(connection, stream, name)
    await _purge_group(connection, stream, name)


async def delete_topic(connection: Connection, stream: Stream) -> None:
    """Delete the topic's stream, or the topic's messages in a stream that stores more."""
    if stream.alone:
        await _delete_stream(connection, stream.name)
    else:
        for info in await _consumers(connection, stream):
            await _delete_consumer(connection, stream, info["name"])
        await purge_topic(connection, stream)
    for name in (later_stream(stream.name), cells_stream(stream.name)):
        await _delete_stream(connection, name)


async def _without_members(connection: Connection, stream: Stream, name: str) -> Config:
    """Return the server's information on a consumer; raises `StateError` if it has members."""
    info = await connection.api(f"CONSUMER.INFO.{stream.name}.{name}")
    present = await members(connection, stream.name, name)
    if present or info.get("num_waiting"):
        named = ", ".join(member.name for member in present) or "of another kind"
        raise StateError(f"the group has live members: {named}")
    return info


async def _delete_consumer(connection: Connection, stream: Stream, name: str) -> None:
    with suppress(nats.js.errors.NotFoundError):
        await connection.api(f"CONSUMER.DELETE.{stream.name}.{name}")


async def _delete_stream(connection: Connection, name: str) -> None:
    with suppress(nats.js.errors.NotFoundError):
        await connection.api(f"STREAM.DELETE.{name}")


async def _purge_group(connection: Connection, stream: Stream, name: str) -> None:
    await purge(connection, stream.later, later_pattern(stream.subject, name))
    await purge(connection, stream.name, private_subject(stream.subject, name))
    await purge(connection, cells_stream(stream.name), cell_subject(stream.name, name))


async def browse(
    connection: Connection, stream: Stream, start: Start
) -> AsyncGenerator[Sequence[Received], None]:
    """Yield the topic's messages from `start` to its end as of now, in publish order."""
    end = await last_sequence(connection, stream.name)
    first = await first_sequence(connection, stream.name, start)
    numbers = {stream.partition(number): number for number in range(stream.partitions)}
    reader = StreamReader(connection, stream.name, stream.patterns, last=first - 1)
    try:
        await reader.open()
        while reader.pending and reader.last < end:
            taken = await reader.take(READ_MESSAGES, READ_SECONDS)
            if not taken:
                await reader.open()  # retention may have deleted the rest meanwhile
            for record in taken:
                record.partition = numbers.get(record.subject.decode(), 0)
            if within := [record for record in taken if int(record.position) <= end]:
                yield within
    finally:
        reader.close()
