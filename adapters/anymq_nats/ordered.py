"""Ordered groups: `StreamLog`, a topic as `LeasedSource` reads it, and its opening."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

from anymq.driver import (
    Cell,
    Clock,
    LeasedSource,
    Listener,
    PartitionedLog,
    Received,
    Start,
    SubscribeSpec,
)

from .connection import Connection, is_set
from .jetstream.lease_store import LeaseStore
from .jetstream.log import StreamReader
from .jetstream.presence import Presence
from .options import NatsOptions
from .positions import first_sequence
from .publisher import Publisher
from .topology import Marker, Stream, make_cells, make_marker

_MIN_SHARE = 50
"""The fewest messages to request for one partition, however many partitions share the credit."""


async def open_ordered(
    connection: Connection,
    publisher: Publisher,
    stream: Stream,
    spec: SubscribeSpec,
    *,
    options: NatsOptions,
    listener: Listener,
    clock: Clock,
) -> LeasedSource:
    """Join an ordered group."""
    marker = await make_marker(connection, stream, spec)
    if spec.create:
        await make_cells(connection, stream, options)
    presence = Presence(connection, stream.name, marker.name, spec.member)
    await presence.open()
    log = StreamLog(connection, publisher, marker, presence)
    # The marker has the start position of the group, whichever member creates the cells.
    start = replace(spec, start=str(marker.first), create=True)
    source = LeasedSource(log, start, listener, clock)
    await source.start()
    return source


class StreamLog(PartitionedLog):
    """The partitions of one topic. Places are stream sequences, one order for all partitions.

    One wait covers all partitions: their pull requests are pending at the same time and set the
    same event. A reader that is not at the caller's place is replaced.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        marker: Marker,
        presence: Presence | None = None,
    ) -> None:
        self.partitions = marker.stream.partitions
        self._connection = connection
        self._stream = marker.stream
        self._leases = LeaseStore(connection, publisher, marker)
        self._presence = presence
        self._readers: dict[int, StreamReader] = {}
        self._wake = asyncio.Event()
        self._turn = 0

    async def cursor_at(self, partition: int, start: Start) -> str:
        return str(await first_sequence(self._connection, self._stream.name, start) - 1)

    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        until = monotonic() + wait
        await self._connection.ready(wait)
        await self._place_readers(after)
        while True:
            self._wake.clear()
            found = await self._take(limit)
            left = until - monotonic()
            if found or not self._readers or left <= 0:
                return found
            await is_set(self._wake, left)

    async def undelivered(self) -> object:
        readers = list(self._readers.values())
        found = await asyncio.gather(*[reader.undelivered() for reader in readers])
        return [each for each in found if each is not None] or None

    async def load(self) -> Mapping[int, Cell]:
        return await self._leases.load()

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        return await self._leases.save(cells)

    async def aclose(self) -> None:
        if self._presence is not None:
            self._presence.close()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    async def _place_readers(self, after: Mapping[int, str]) -> None:
        """Keep or open a reader at each of these places, and close all others."""
        for number, reader in list(self._readers.items()):
            if number not in after or reader.last != int(after[number]):
                reader.close()
                del self._readers[number]
        fresh: list[StreamReader] = []
        for number in after.keys() - self._readers.keys():
            subject = self._stream.partition(number)
            last = int(after[number])
            reader = StreamReader(
                self._connection, self._stream.name, [subject], last=last, wake=self._wake
            )
            self._readers[number] = reader
            fresh.append(reader)
        await asyncio.gather(*[reader.open() for reader in fresh])

    async def _take(self, limit: int) -> list[Received]:
        """Return messages that have arrived; each call begins with the next partition."""
        found: list[Received] = []
        numbers = sorted(self._readers)
        self._turn += 1
        for at in range(len(numbers)):
            if len(found) >= limit:
                break
            number = numbers[(at + self._turn) % len(numbers)]
            share = max(limit // len(numbers), _MIN_SHARE)
            taken = await self._readers[number].take(min(share, limit - len(found)), 0.0)
            for record in taken:
                record.partition = number
            found += taken
        return found
