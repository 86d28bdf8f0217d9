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
    """Keeps a reply to a few megabytes: COUNT goes by the size that entries have had so far."""

    def __init__(self) -> None:
        self._size = _FIRST_SIZE

    def arguments(self, limit: int, wait: float) -> list[bytes]:
        """Return COUNT and BLOCK for a read of up to `limit` entries."""
        count = max(1, min(limit, _MOST, int(_BYTES / self._size)))
        args = [b"COUNT", b"%d" % count]
        block = min(wait, LONGEST_BLOCK)
        if block > 0:  # BLOCK 0 would be for ever
            args += (b"BLOCK", b"%d" % max(1, round(block * 1000)))
        return args

    def learn(self, entries: Sequence[Any]) -> None:
        """These have been read: up at once, down by halves."""
        if entries:
            sample = entries[:: 1 + len(entries) // _SAMPLE]
            size = sum(_length(entry[1]) for entry in sample) / len(sample)
            self._size = max(size, (self._size + size) / 2)


def _length(flat: Sequence[bytes]) -> int:
    return sum(map(len, flat)) + 8 * len(flat)
