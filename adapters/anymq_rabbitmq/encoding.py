"""The properties of records, fast: what most records have in common is encoded once."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from anymq.driver import Record

from . import wire

TIME = "anymq-time"
TIME_ENTRY = b"\x0a" + TIME.encode() + b"S\x00\x00\x00\x0d%013d"
_MOST = 512
_LENGTH = struct.Struct(">I").pack
_FLAGS = wire.HEADERS | wire.DELIVERY_MODE | wire.MESSAGE_ID | wire.TIMESTAMP


class Encoder:
    """Encodes records whose headers all stand for themselves: `is_plain` says so of a name."""

    def __init__(self, is_plain: Callable[[str], bool]) -> None:
        self._is_plain = is_plain
        self._names: dict[str, bytes | None] = {}

    def properties(self, record: Record) -> bytes | None:
        """As `wire.encode` returns them for now; None for a record that is not so simple."""
        shared = record.common.encoded(self._entries)
        own = self._entries(record.own)
        kind = _kind(record.content_type)
        name = record.id.encode()
        if shared is None or own is None or kind is None or len(name) > 255:
            return None
        entry, stamp = _moment(time.time_ns() // 1_000_000)
        size = len(entry) + len(shared) + len(own)
        return b"".join(
            (kind, _LENGTH(size), entry, shared, own, b"\x02%c" % len(name), name, stamp)
        )

    def _entries(self, headers: Mapping[str, str]) -> bytes | None:
        parts: list[bytes] = []
        names = self._names
        for name, value in headers.items():
            head = names.get(name) or self._head(name)
            if head is None:
                return None
            data = value.encode()
            parts += (head, _LENGTH(len(data)), data)
        return b"".join(parts)

    def _head(self, name: str) -> bytes | None:
        head = wire.short(name) + b"S" if self._is_plain(name) else None
        if len(self._names) < _MOST:
            self._names[name] = head
        return head


@lru_cache(maxsize=_MOST)
def _kind(content_type: str | None) -> bytes | None:
    if content_type is None:
        return _FLAGS.to_bytes(2, "big")
    if len(content_type.encode()) > 255:
        return None
    return (_FLAGS | wire.CONTENT_TYPE).to_bytes(2, "big") + wire.short(content_type)


@lru_cache(maxsize=16)
def _moment(milliseconds: int) -> tuple[bytes, bytes]:
    # The property has seconds only.
    return TIME_ENTRY % milliseconds, (milliseconds // 1000).to_bytes(8, "big")
