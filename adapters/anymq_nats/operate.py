"""Moving and deleting groups, emptying and deleting topics."""

from __future__ import annotations

import nats.js.errors

from anymq.driver import Start, StateError

from .connection import Link
from .groups import save
from .jetstream.presence import members
from .jetstream.schema import (
    cell_subject,
    cells_stream,
    consumer_name,
    later_pattern,
    later_stream,
    private_pattern,
    private_subject,
)
from .listing import consumers
from .positions import first_sequence, starting
from .topology import Config, Stream, purge

_STARTS = ("deliver_policy", "opt_start_seq", "opt_start_time")


async def seek(link: Link, stream: Stream, native_group: str, to: Start) -> None:
    """Make the group's durable consumer anew, at `to`; raises `NotFoundError`, `StateError`.

    With it goes the group's incarnation, and so the cells of an ordered one. Killed between the
    two steps, this leaves no group: the next to subscribe makes it.
    """
    name = consumer_name(native_group)
    config: Config = (await _idle(link, stream, name))["config"]
    first = await first_sequence(link, stream.name, to)
    kept = {key: value for key, value in config.items() if key not in _STARTS}
    await _delete_consumer(link, stream, name)
    await _purge_group(link, stream, name)
    await save(link, stream, {**kept, **starting(first)}, "create")


async def delete_group(link: Link, stream: Stream, native_group: str) -> None:
    """Delete the group and what waits for it; raises `StateError` while it has live members."""
    name = consumer_name(native_group)
    try:
        await _idle(link, stream, name)
    except nats.js.errors.NotFoundError:
        return
    await _delete_consumer(link, stream, name)
    await _purge_group(link, stream, name)


async def delete_topic(link: Link, stream: Stream) -> None:
    """Delete the topic: its stream, or its share of a stream that holds more."""
    if stream.alone:
        await _delete_stream(link, stream.name)
    else:
        for info in await consumers(link, stream):
            await _delete_consumer(link, stream, info["name"])
        await purge_topic(link, stream)
    for name in (later_stream(stream.name), cells_stream(stream.name)):
        await _delete_stream(link, name)


async def purge_topic(link: Link, stream: Stream) -> None:
    """Delete what the topic holds, also what waits."""
    if stream.apart:
        await purge(link, stream.later)
    if stream.alone:
        await purge(link, stream.name)
        return
    waiting = [private_pattern(stream.subject), later_pattern(stream.subject)]
    for pattern in (*stream.patterns, *waiting):
        await purge(link, stream.name, pattern)


async def _idle(link: Link, stream: Stream, name: str) -> Config:
    """Return what the server says of a consumer, unless somebody receives from it."""
    info = await link.api(f"CONSUMER.INFO.{stream.name}.{name}")
    alive = await members(link, stream.name, name)
    if alive or info.get("num_waiting"):
        named = ", ".join(member.name for member in alive) or "of another kind"
        raise StateError(f"the group has live members: {named}")
    return info


async def _delete_consumer(link: Link, stream: Stream, name: str) -> None:
    try:
        await link.api(f"CONSUMER.DELETE.{stream.name}.{name}")
    except nats.js.errors.NotFoundError:
        return


async def _delete_stream(link: Link, name: str) -> None:
    try:
        await link.api(f"STREAM.DELETE.{name}")
    except nats.js.errors.NotFoundError:
        return


async def _purge_group(link: Link, stream: Stream, name: str) -> None:
    await purge(link, stream.later, later_pattern(stream.subject, name))
    await purge(link, stream.name, private_subject(stream.subject, name))
    await purge(link, cells_stream(stream.name), cell_subject(stream.name, name))
