"""A reader of its own: every message of the topic, in order, to this subscription alone."""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import Reader, Received

from .jetstream.log import StreamReader


class BroadcastSource(Reader):
    """A broadcast subscription over a `StreamReader`."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    @property
    def place(self) -> object:
        return self._reader.place

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return ()
        return await self._reader.take(limit, wait)

    async def undelivered(self) -> object:
        return await self._reader.undelivered()

    async def aclose(self) -> None:
        self._reader.close()
