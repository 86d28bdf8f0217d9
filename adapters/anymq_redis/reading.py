"""What a blocking read asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .connection import LONGEST_BLOCK

_BYTES = 8 * 1024 * 1024
_FIRST_SIZE = 64 * 1024.0
_MOST = 2000
_SAMPLE = 32


class ReadSize:
    """Keeps a reply to what was asked for, and to a few megabytes.

    The server counts by stream, so COUNT is shared by as many as gave something the last time; and
    it goes by the size that entries have had so far.
    """

    def __init__(self) -> None:
        self._size = _FIRST_SIZE
        self._streams = 1

    def arguments(self, limit: int, wait: float) -> list[bytes]:
        """Return COUNT and BLOCK for a read of up to `limit` entries."""
        args = [b"COUNT", self.count(-(-limit // self._streams))]
        block = min(wait, LONGEST_BLOCK)
        if block > 0:  # BLOCK 0 would be for ever
            args += (b"BLOCK", b"%d" % max(1, round(block * 1000)))
        return args

    def count(self, limit: int) -> bytes:
        """Return how many entries to read of one stream, up to `limit`."""
        return b"%d" % max(1, min(limit, _MOST, int(_BYTES / self._size) // self._streams))

    def learn(self, reply: Sequence[Any] | None) -> None:
        """This is what a read gave: sizes go up at once, down by halves."""
        self._streams = len(reply or ()) or 1
        for _, entries in reply or ():
            sample = entries[:: 1 + len(entries) // _SAMPLE]
            size = sum(_length(entry[1]) for entry in sample) / len(sample)
            self._size = max(size, (self._size + size) / 2)


def _length(flat: Sequence[bytes]) -> int:
    return sum(map(len, flat)) + 8 * len(flat)
