"""A topic as an ordered group reads it: a reader a partition, and a cell a partition."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic

from anymq.driver import Cell, PartitionedLog, Received, Start

from .connection import Link, woken
from .groups import Marker
from .jetstream.lease_store import Cells
from .jetstream.log import StreamReader
from .jetstream.presence import Presence
from .positions import first_sequence
from .publisher import Publisher

# The least that is asked for of each partition, however many share the credit.
_LEAST = 50


class StreamLog(PartitionedLog):
    """Places are stream sequences: one order for all partitions of a topic.

    One wait covers all partitions: their pull requests are open at the same time, and share a
    bell. A reader that is not where the caller is begins anew there.
    """

    def __init__(
        self, link: Link, publisher: Publisher, marker: Marker, presence: Presence | None = None
    ) -> None:
        self.partitions = marker.stream.partitions
        self._link = link
        self._stream = marker.stream
        self._cells = Cells(link, publisher, marker)
        self._presence = presence
        self._readers: dict[int, StreamReader] = {}
        self._wake = asyncio.Event()
        self._turn = 0

    async def place(self, partition: int, start: Start) -> str:
        return str(await first_sequence(self._link, self._stream.name, start) - 1)

    async def read(self, behind: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        until = monotonic() + wait
        await self._link.ready(wait)
        await self._be_at(behind)
        while True:
            self._wake.clear()
            found = await self._sweep(limit)
            left = until - monotonic()
            if found or not self._readers or left <= 0:
                return found
            await woken(self._wake, left)

    async def undelivered(self) -> object:
        readers = list(self._readers.values())
        found = await asyncio.gather(*[reader.undelivered() for reader in readers])
        return [each for each in found if each is not None] or None

    async def load(self) -> Mapping[int, Cell]:
        return await self._cells.load()

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        return await self._cells.save(cells)

    async def aclose(self) -> None:
        if self._presence is not None:
            self._presence.close()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    async def _be_at(self, behind: Mapping[int, str]) -> None:
        """Have readers for these partitions at these places, and no others."""
        for number, reader in list(self._readers.items()):
            if number not in behind or reader.last != int(behind[number]):
                reader.close()
                del self._readers[number]
        fresh: list[StreamReader] = []
        for number in behind.keys() - self._readers.keys():
            subject = self._stream.partition(number)
            last = int(behind[number])
            reader = StreamReader(
                self._link, self._stream.name, [subject], last=last, wake=self._wake
            )
            self._readers[number] = reader
            fresh.append(reader)
        await asyncio.gather(*[reader.open() for reader in fresh])

    async def _sweep(self, limit: int) -> list[Received]:
        """Take what has come, each time beginning with the next partition."""
        found: list[Received] = []
        numbers = sorted(self._readers)
        self._turn += 1
        for at in range(len(numbers)):
            if len(found) >= limit:
                break
            number = numbers[(at + self._turn) % len(numbers)]
            share = max(limit // len(numbers), _LEAST)
            taken = await self._readers[number].take(min(share, limit - len(found)), 0.0)
            for record in taken:
                record.partition = number
            found += taken
        return found
