"""`BroadcastReader`: a reader that receives every message and keeps its own cursors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anymq.driver import Listener, Reader, Received, SubscribeSpec

from .connection import Commands, ReadConnection
from .ordered import StreamReader
from .positions import AFTER_ALL, BEFORE_ALL, entry_id, start_ids
from .topology import RedisTopic, stream_infos

GAP_CHECK_SECONDS = 10.0
"""Seconds without a completed read after which a reader looks for entries trimmed before it."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of a reader in one stream: after the entry `id`.

    `number` counts the entries that the stream had been given up to there, None if unknown. If more
    than that have been deleted, the reader has missed some.
    """

    id: bytes
    number: int | None

    def advanced(self, records: Sequence[Received]) -> Cursor:
        """Return the cursor after `records`, which follow this one."""
        number = None if self.number is None else self.number + len(records)
        return Cursor(entry_id(records[-1].position), number)

    def gap(self, info: Mapping[bytes, Any]) -> tuple[bytes, Cursor] | None:
        """Return the oldest entry's id and the cursor before it, if entries were missed."""
        added = info.get(b"entries-added")
        if self.number is None or added is None:
            return None
        gone = added - info[b"length"]
        entry = info.get(b"first-entry")
        oldest = entry[0] if entry else b""
        if gone <= self.number or (oldest and _parts(oldest) <= _parts(self.id)):
            return None
        return oldest, Cursor(self.id if oldest else info[b"last-generated-id"], gone)


def start_cursors(spec: SubscribeSpec, infos: Sequence[Mapping[bytes, Any]]) -> list[Cursor]:
    """Return the cursors to start with in the streams that `infos` describe."""
    if isinstance(spec.position, tuple):
        return list(spec.position)
    starts = start_ids(spec.start, len(infos))
    return [_cursor(start, info) for start, info in zip(starts, infos, strict=True)]


def _cursor(start: bytes, info: Mapping[bytes, Any]) -> Cursor:
    added = info.get(b"entries-added", None if info else 0)
    if start == AFTER_ALL:
        return Cursor(info.get(b"last-generated-id", BEFORE_ALL), added)
    if start == BEFORE_ALL and added is not None:
        return Cursor(BEFORE_ALL, added - info.get(b"length", 0))
    return Cursor(start, None)


def _parts(id: bytes) -> tuple[int, int]:
    ms, _, seq = id.partition(b"-")
    return int(ms), int(seq)


class BroadcastReader(Reader):
    """Reads all partitions, each after its cursor."""

    def __init__(
        self,
        commands: Commands,
        reader: ReadConnection,
        topic: RedisTopic,
        spec: SubscribeSpec,
        cursors: Sequence[Cursor],
        listener: Listener,
    ) -> None:
        self._commands = commands
        self._reader = StreamReader(reader, topic)
        self._topic = topic
        self._listener = listener
        self._cursors = list(cursors)
        self._loop = asyncio.get_running_loop()
        self._last_read = -GAP_CHECK_SECONDS if spec.position is not None else self._loop.time()

    @property
    def position(self) -> object:
        return tuple(self._cursors)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        if self._loop.time() - self._last_read >= GAP_CHECK_SECONDS:
            await self._report_gaps()
        after = {number: cursor.id for number, cursor in enumerate(self._cursors)}
        records: list[Received] = []
        for number, found in await self._reader.read(after, limit, wait):
            self._cursors[number] = self._cursors[number].advanced(found)
            records += found
        self._last_read = self._loop.time()
        return records

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def _report_gaps(self) -> None:
        """Report entries that were trimmed before this reader read them, and skip them."""
        keys = self._topic.keys
        for number, info in enumerate(await stream_infos(self._commands, keys.streams)):
            cursor = self._cursors[number]
            gap = cursor.gap(info) if info else None
            if gap is None:
                continue
            oldest, self._cursors[number] = gap
            prefix = keys.prefix(number)
            self._listener.skipped(
                (prefix + cursor.id).decode(), (prefix + oldest).decode() if oldest else ""
            )
