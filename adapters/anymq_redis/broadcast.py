"""`BroadcastSource`: a reader that gets everything and remembers its places."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import Listener, Reader, Received, SubscribeSpec

from .connection import Commands, ReadConnection
from .counting import inform
from .ordered import StreamReader
from .positions import END, FIRST, beginning, id_at
from .topology import RedisTopic

QUIET = 10.0
"""Seconds without an answered read after which a reader looks whether it has missed something."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a reader is in one stream: behind the entry `id`.

    `number` is how many entries the stream had been given up to there, None where nobody has
    counted: what was trimmed behind this number has never been read.
    """

    id: bytes
    number: int | None

    def onward(self, records: Sequence[Received]) -> Mark:
        """Return the mark behind `records`, which follow this one."""
        number = None if self.number is None else self.number + len(records)
        return Mark(id_at(records[-1].position), number)

    def missed(self, info: Mapping[bytes, Any]) -> tuple[bytes, Mark] | None:
        """Return the oldest entry's id, and the mark before it, if entries in between are gone."""
        added = info.get(b"entries-added")
        if self.number is None or added is None:
            return None
        gone = added - info[b"length"]
        entry = info.get(b"first-entry")
        oldest = entry[0] if entry else b""
        if gone <= self.number or (oldest and _parts(oldest) <= _parts(self.id)):
            return None
        return oldest, Mark(self.id if oldest else info[b"last-generated-id"], gone)


def begin(spec: SubscribeSpec, infos: Sequence[Mapping[bytes, Any]]) -> list[Mark]:
    """Return where to begin in the streams that `infos` are about."""
    if isinstance(spec.place, tuple):
        return list(spec.place)
    starts = beginning(spec.start, len(infos))
    return [_mark(start, info) for start, info in zip(starts, infos, strict=True)]


def _mark(start: bytes, info: Mapping[bytes, Any]) -> Mark:
    added = info.get(b"entries-added", None if info else 0)
    if start == END:
        return Mark(info.get(b"last-generated-id", FIRST), added)
    if start == FIRST and added is not None:
        return Mark(FIRST, added - info.get(b"length", 0))
    return Mark(start, None)


def _parts(id: bytes) -> tuple[int, int]:
    ms, _, seq = id.partition(b"-")
    return int(ms), int(seq)


class BroadcastSource(Reader):
    """Reads all partitions, each behind the last id that came from it."""

    def __init__(
        self,
        commands: Commands,
        reader: ReadConnection,
        topic: RedisTopic,
        spec: SubscribeSpec,
        marks: Sequence[Mark],
        listener: Listener,
    ) -> None:
        self._commands = commands
        self._reader = StreamReader(reader, topic)
        self._topic = topic
        self._listener = listener
        self._marks = list(marks)
        self._loop = asyncio.get_running_loop()
        self._looked = -QUIET if spec.place is not None else self._loop.time()

    @property
    def place(self) -> object:
        return tuple(self._marks)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        if self._loop.time() - self._looked >= QUIET:
            await self._look()
        behind = {number: mark.id for number, mark in enumerate(self._marks)}
        records: list[Received] = []
        for number, found in await self._reader.read(behind, limit, wait):
            self._marks[number] = self._marks[number].onward(found)
            records += found
        self._looked = self._loop.time()
        return records

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def _look(self) -> None:
        """Say what has been trimmed before it was read."""
        keys = self._topic.keys
        for number, info in enumerate(await inform(self._commands, keys.streams)):
            mark = self._marks[number]
            missed = mark.missed(info) if info else None
            if missed is None:
                continue
            oldest, self._marks[number] = missed
            prefix = keys.prefix(number)
            self._listener.skipped(
                (prefix + mark.id).decode(), (prefix + oldest).decode() if oldest else ""
            )
