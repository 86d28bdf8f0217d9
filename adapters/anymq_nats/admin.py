"""What the server knows of a topic and of a group."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import nats.js.errors

from anymq.driver import (
    GroupInfo,
    MemberInfo,
    PartitionInfo,
    PartitionState,
    TopicInfo,
    TopicSpec,
    ordered,
)

from .client.protocol import parse_headers
from .connection import Link
from .groups import Marker, is_ordered, subjects_of
from .jetstream.log import StreamReader
from .jetstream.presence import members
from .jetstream.schema import (
    EVERYONE,
    consumer_name,
    is_copy,
    later_pattern,
)
from .ordered import StreamLog
from .positions import count
from .publisher import Publisher
from .topology import NANO, Config, Stream, stream_config

_WAIT = 2.0


async def describe_topic(link: Link, spec: TopicSpec) -> TopicInfo:
    """Return what the server knows of a topic; raises `NotFoundError`."""
    stream = Stream.of(await stream_config(link, spec.native), spec.native)
    details = await asyncio.gather(
        *[
            link.api(f"STREAM.INFO.{stream.name}", {"subjects_filter": pattern})
            for pattern in stream.patterns
        ]
    )
    state, config = details[0]["state"], details[0]["config"]
    counts: dict[str, int] = {}
    for found in details:
        counts |= found["state"].get("subjects") or {}
    partitions = await asyncio.gather(
        *[_partition(link, stream, n, counts) for n in range(stream.partitions)]
    )
    times = [time for _, time in partitions if time is not None]
    waiting = [later_pattern(stream.subject, EVERYONE)]
    return TopicInfo(
        name=spec.name,
        native=spec.native,
        partitions=tuple(info for info, _ in partitions),
        messages=sum(info.messages or 0 for info, _ in partitions),
        bytes=int(state["bytes"]) if stream.alone else None,
        oldest=min(times, default=None),
        delayed=await count(link, stream.later, waiting) if stream.schedules else 0,
        retention=config["max_age"] / NANO or None,
        retention_bytes=config["max_bytes"] if config["max_bytes"] > 0 and stream.alone else None,
    )


async def _partition(
    link: Link, stream: Stream, number: int, counts: Mapping[str, int]
) -> tuple[PartitionInfo, datetime | None]:
    """Return the partition, and the time of its first message."""
    subject = stream.partition(number)
    messages = counts.get(subject, 0)
    first, last = await asyncio.gather(
        _message(link, stream, {"seq": 1, "next_by_subj": subject}),
        _message(link, stream, {"last_by_subj": subject}),
    )
    info = PartitionInfo(
        number=number,
        messages=messages,
        first=str(first["seq"]) if first else None,
        last=str(last["seq"]) if last else None,
    )
    return info, datetime.fromisoformat(first["time"]) if first else None


async def _message(link: Link, stream: Stream, which: Mapping[str, Any]) -> Config | None:
    return await _message_in(link, stream.name, which)


async def _message_in(link: Link, name: str, which: Mapping[str, Any]) -> Config | None:
    try:
        found = await link.api(f"STREAM.MSG.GET.{name}", dict(which))
    except nats.js.errors.NotFoundError:
        return None
    message: Config = found["message"]
    return message


async def describe_group(
    link: Link, publisher: Publisher, stream: Stream, spec: TopicSpec, native_group: str
) -> GroupInfo:
    """Return what the server knows of a group; raises `NotFoundError`."""
    name = consumer_name(native_group)
    info, alive = await asyncio.gather(
        link.api(f"CONSUMER.INFO.{stream.name}.{name}"), members(link, stream.name, name)
    )
    present = [MemberInfo(name=member.name, host=member.host) for member in alive]
    if not is_ordered(info["config"]):
        return GroupInfo(
            topic=spec.name,
            group=native_group,
            native=native_group,
            ordered=False,
            members=tuple(present),
            **await _plain(link, stream, info),
        )
    states = await ordered.state(StreamLog(link, publisher, Marker.of(info, stream)))
    lags, oldest = await _behind(link, stream, states)
    return ordered.describe(
        spec, native_group, states=states, lags=lags, lag_seconds=oldest, members=present
    )


async def _plain(link: Link, stream: Stream, info: Config) -> dict[str, Any]:
    name = info["name"]
    undelivered, unsettled = int(info["num_pending"]), int(info["num_ack_pending"])
    # Without schedules the consumer itself keeps what waits among what is in flight.
    waiting = (
        await count(link, stream.later, [later_pattern(stream.subject, name)])
        if stream.schedules
        else None
    )
    return {
        "lag": undelivered + unsettled + (waiting or 0),
        "lag_seconds": await _age(link, stream, info, waiting or 0),
        "in_flight": None if waiting is None else unsettled,
        "waiting": waiting,
        "oldest_pending": None if unsettled else 0.0,
    }


async def _age(link: Link, stream: Stream, info: Config, waiting: int) -> float:
    """Return the age in seconds of the oldest message that a consumer has not settled."""
    unsettled = int(info["num_ack_pending"])
    looks: list[tuple[str, int, str]] = []
    if unsettled or int(info["num_pending"]):
        behind = int(info["ack_floor" if unsettled else "delivered"]["stream_seq"]) + 1
        filters = subjects_of(info["config"]) or [">"]
        looks += [(stream.name, behind, each) for each in filters]
    if waiting:
        looks.append((stream.later, 1, later_pattern(stream.subject, info["name"])))
    found = await asyncio.gather(
        *[_message_in(link, name, {"seq": seq, "next_by_subj": each}) for name, seq, each in looks]
    )
    now = datetime.fromisoformat(info["ts"])
    return max((_age_at(message, now) for message in found if message), default=0.0)


def _age_at(message: Config, now: datetime) -> float:
    """Return how old `message` is; a copy for a retry says when it was published first."""
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
    link: Link, stream: Stream, states: Mapping[int, PartitionState]
) -> tuple[dict[int, int], float]:
    """Return the lags, and the age of the oldest record that is not done."""
    counts = await asyncio.gather(*[_lag(link, stream, n, at) for n, at in states.items()])
    lags = dict(zip(states, counts, strict=True))
    ages = [
        await _oldest(link, stream, number, state)
        for number, state in states.items()
        if lags[number]
    ]
    return lags, max(ages, default=0.0)


async def _lag(link: Link, stream: Stream, number: int, state: PartitionState) -> int:
    after = await count(link, stream.name, [stream.partition(number)], int(state.cursor) + 1)
    return max(0, after - len(state.done))


async def _oldest(link: Link, stream: Stream, number: int, state: PartitionState) -> float:
    """Return the age of the oldest record that is not done; 0 if there is none."""
    subjects, cursor = [stream.partition(number)], int(state.cursor)
    reader = StreamReader(link, stream.name, subjects, last=cursor)
    try:
        await reader.open()
        while reader.pending:
            taken = await reader.take(500, _WAIT)
            if not taken:
                await reader.open()
            for record in taken:
                if record.position not in state.done:
                    return max(0.0, link.server_time() - (record.time or 0.0))
    finally:
        reader.close()
    return 0.0
