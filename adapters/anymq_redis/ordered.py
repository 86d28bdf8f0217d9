"""`StreamReader` and `RedisLog`: partitions read in order, and what the core makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from redis.exceptions import RedisError

from anymq.driver import Cell, PartitionedLog, Received, Start, logger, ordered

from .client.codec import pack
from .connection import LONGEST_BLOCK, Commands, ReadConnection
from .counting import inform
from .messages import Place, received
from .positions import END, beginning, id_at
from .reading import ReadSize
from .scripts import SAVE
from .scripts.keys import GroupKeys
from .topology import RedisTopic

log = logger("anymq.redis")


class StreamReader:
    """XREAD: whoever reads says from where, so what a broken read had fetched is read again."""

    def __init__(self, reader: ReadConnection, topic: RedisTopic) -> None:
        self._reader = reader
        self._streams = topic.keys.streams
        self._places = {
            stream: Place(stream, number, topic.keys.prefix(number))
            for number, stream in enumerate(self._streams)
        }
        self._read_size = ReadSize()
        self._turn = 0

    async def read(
        self, behind: Mapping[int, bytes], limit: int, wait: float
    ) -> list[tuple[int, list[Received]]]:
        """Return for each partition that has any what follows the id `behind`, `limit` in all."""
        if not behind:
            await asyncio.sleep(min(wait, LONGEST_BLOCK))
            return []
        numbers = self._order(behind)
        command = pack(
            *(b"XREAD", *self._read_size.arguments(limit, wait), b"STREAMS"),
            *(self._streams[number] for number in numbers),
            *(behind[number] for number in numbers),
        )
        reply = await self._reader.read(command)
        self._read_size.learn(reply)
        found: list[tuple[int, list[Received]]] = []
        for stream, entries in reply or ():
            place = self._places[stream]
            records = [received(place, entry, None, 0) for entry in entries[:limit]]
            limit -= len(records)
            if records:
                found.append((place.partition, records))
        return found

    async def aclose(self) -> None:
        """Drop the connection."""
        await self._reader.aclose()

    def _order(self, behind: Mapping[int, bytes]) -> list[int]:
        """Begin with another partition each time: the first ones may use up the limit."""
        numbers = sorted(behind)
        self._turn = (self._turn + 1) % len(numbers)
        return numbers[self._turn :] + numbers[: self._turn]


async def ends(commands: Commands, streams: Sequence[bytes]) -> list[bytes]:
    """Return the id of the last entry that each stream was given, also if it has been deleted."""
    return [info.get(b"last-generated-id", b"0-0") for info in await inform(commands, streams)]


class RedisLog(PartitionedLog):
    """The streams of a topic, and a hash of cells: each a revision, a cursor, and the value.

    The cursor stands there for the script that trims. Without a `reader` it can only be looked at.
    `leave` is called when it is closed.
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

    async def place(self, partition: int, start: Start) -> str:
        behind = beginning(start, self.partitions)[partition]
        if behind == END:
            (behind,) = await ends(self._commands, [self._keys.streams[partition]])
        return (self._keys.prefix(partition) + behind).decode()

    async def read(self, behind: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        assert self._reader is not None
        ids = {number: id_at(place) for number, place in behind.items()}
        found = await self._reader.read(ids, limit, wait)
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
            cursor = id_at(ordered.cursor_of(cell.value))
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
                log.debug("leaving %s failed: %s", self._group.group.decode(), error)

    def _name(self, partition: int) -> bytes:
        return b"%d:%b" % (partition, self._group.group)
