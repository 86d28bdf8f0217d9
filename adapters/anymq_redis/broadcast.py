"""`BroadcastSource`: a reader that gets everything and remembers its place."""

from __future__ import annotations

from collections.abc import Sequence

from anymq.driver import Nack, Received, Source

from .connection import Reader, pack
from .reading import ReadSize
from .wire import received


class BroadcastSource(Source):
    """XREAD after the last id: what a broken read had fetched is simply read again."""

    def __init__(self, reader: Reader, stream: bytes, last: bytes) -> None:
        self._reader = reader
        self._stream = stream
        self._last = last
        self._read_size = ReadSize()

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        command = pack(
            *(b"XREAD", *self._read_size.arguments(limit, wait)),
            *(b"STREAMS", self._stream, self._last),
        )
        reply = await self._reader.read(command)
        if not reply:
            return []
        entries = reply[0][1]
        self._read_size.learn(entries)
        self._last = entries[-1][0]
        name = self._stream.decode()
        return [received(name, entry, None, 0) for entry in entries]

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        await self._reader.aclose()
