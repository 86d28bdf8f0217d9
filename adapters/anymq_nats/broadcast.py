"""A reader of its own: every message of the topic, in order, to this subscription alone."""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import Nack, Received, Source

from .reader import Reader


class BroadcastSource(Source):
    """Gives all that a `Reader` reads; there is nothing to settle."""

    def __init__(self, reader: Reader) -> None:
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

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        self._reader.close()
