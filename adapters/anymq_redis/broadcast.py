"""`BroadcastSource`: a reader that gets everything and remembers its places."""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import Nack, Received, Source

from .log import StreamReader
from .places import id_at


class BroadcastSource(Source):
    """Reads all partitions, each behind the last id that came from it."""

    def __init__(self, reader: StreamReader, behind: Sequence[bytes]) -> None:
        self._reader = reader
        self._behind = dict(enumerate(behind))

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        records: list[Received] = []
        for number, found in await self._reader.read(self._behind, limit, wait):
            self._behind[number] = id_at(found[-1].position)
            records += found
        return records

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        await self._reader.aclose()
