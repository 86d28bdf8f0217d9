"""`BroadcastReader`: a broadcast subscription, read with ephemeral consumers."""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import Listener, Reader, Received, SubscribeSpec

from .connection import Connection
from .jetstream.log import StreamReader
from .positions import first_sequence
from .topology import Stream


async def open_broadcast(
    connection: Connection, stream: Stream, spec: SubscribeSpec, listener: Listener
) -> BroadcastReader:
    """Open a broadcast subscription at the start position or at the place of an earlier reader."""
    first = await first_sequence(connection, stream.name, spec.start)
    reader = StreamReader(
        connection,
        stream.name,
        stream.patterns,
        last=first - 1,
        position=spec.position,
        skipped=listener.skipped,
    )
    try:
        await reader.open()
    except BaseException:
        reader.close()
        raise
    return BroadcastReader(reader)


class BroadcastReader(Reader):
    """Every message of the topic, in publish order, over a `StreamReader`."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    @property
    def position(self) -> object:
        return self._reader.position

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return ()
        return await self._reader.take(limit, wait)

    async def undelivered(self) -> object:
        return await self._reader.undelivered()

    async def aclose(self) -> None:
        self._reader.close()
