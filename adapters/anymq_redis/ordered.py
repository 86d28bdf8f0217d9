"""Ordered groups: reading partitions in order, and the cells with their lease records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from redis.exceptions import RedisError

from anymq.driver import Cell, PartitionedLog, Received, Start, logger, ordered

from .client.codec import pack
from .connection import MAX_BLOCK_SECONDS, Commands, ReadConnection, ReadSize
from .messages import StreamRef, received
from .positions import AFTER_ALL, entry_id, start_ids
from .scripts import SAVE
from .scripts.keys import GroupKeys
from .topology import RedisTopic, last_ids

log = logger("anymq.redis")


class StreamReader:
    """Reads partitions by XREAD, for ordered groups and broadcast readers.

    The caller keeps the positions, so entries lost with a broken read are read again.
    """

    def __init__(self, reader: ReadConnection, topic: RedisTopic) -> None:
        self._reader = reader
        self._streams = topic.keys.streams
        self._refs = {
            stream: StreamRef(stream, number, topic.keys.prefix(number))
            for number, stream in enumerate(self._streams)
        }
        self._read_size = ReadSize()
        self._turn = 0

    async def read(
        self, after: Mapping[int, bytes], limit: int, wait: float
    ) -> list[tuple[int, list[Received]]]:
        """Return the records that follow the ids `after`, by partition, up to `limit` in all."""
        if not after:
            await asyncio.sleep(min(wait, MAX_BLOCK_SECONDS))
            return []
        numbers = self._order(after)
        command = pack(
            *(b"XREAD", *self._read_size.arguments(limit, wait), b"STREAMS"),
            *(self._streams[number] for number in numbers),
            *(after[number] for number in numbers),
        )
        reply = await self._reader.read(command)
        self._read_size.learn(reply)
        found: list[tuple[int, list[Received]]] = []
        for key, entries in reply or ():
            stream = self._refs[key]
            records = [received(stream, entry, None, 0) for entry in entries[:limit]]
            limit -= len(records)
            if records:
                found.append((stream.partition, records))
        return found

    async def aclose(self) -> None:
        """Close the connection."""
        await self._reader.aclose()

    def _order(self, after: Mapping[int, bytes]) -> list[int]:
        """Return the partitions, another one first each time: the first may use up the limit."""
        numbers = sorted(after)
        self._turn = (self._turn + 1) % len(numbers)
        return numbers[self._turn :] + numbers[: self._turn]


class RedisLog(PartitionedLog):
    """The streams of a topic, and a hash of cells: each a revision, a cursor, and the value.

    The cursor stands apart from the value for the script that trims. A log without a `reader`
    cannot read records. `leave` is awaited when it closes.
    """

    def __init__(
        self,
        commands: Commands,
        topic: RedisTopic,
        group: GroupKeys,
        *,
        reader: StreamReader | None = None,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.partitions = topic.partitions
        self._commands = commands
        self._reader = reader
        self._leave = leave
        self._keys = topic.keys
        self._group = group

    async def cursor_at(self, partition: int, start: Start) -> str:
        after = start_ids(start, self.partitions)[partition]
        if after == AFTER_ALL:
            (after,) = await last_ids(self._commands, [self._keys.streams[partition]])
        return (self._keys.prefix(partition) + after).decode()

    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        assert self._reader is not None
        entry_ids = {number: entry_id(position) for number, position in after.items()}
        found = await self._reader.read(entry_ids, limit, wait)
        return [record for _, records in found for record in records]

    async def load(self) -> Mapping[int, Cell]:
        names = [self._name(number) for number in range(self.partitions)]
        values = await self._commands.call(b"HMGET", self._keys.cells, *names)
        cells: dict[int, Cell] = {}
        for number, value in enumerate(values):
            if value is not None:
                revision, _, content = value.split(b" ", 2)
                cells[number] = Cell(content.decode(), int(revision))
        return cells

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        args: list[bytes] = []
        for number, cell in cells.items():
            cursor = entry_id(ordered.cursor_of(cell.value))
            args += (self._name(number), b"%d" % cell.revision, cursor, cell.value.encode())
        revisions = await self._commands.eval(SAVE, [self._keys.cells], args)
        return {number: revision or None for number, revision in zip(cells, revisions, strict=True)}

    async def aclose(self) -> None:
        if self._reader is not None:
            await self._reader.aclose()
        if self._leave is not None:
            leave, self._leave = self._leave, None
            try:
                await leave()
            except (RedisError, OSError) as error:
                log.debug(
                    "leaving group %s failed: %s; it lists this member for six more seconds",
                    self._group.group.decode(),
                    error,
                )

    def _name(self, partition: int) -> bytes:
        return b"%d:%b" % (partition, self._group.group)
