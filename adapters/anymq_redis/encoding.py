"""Records packed for the wire: what most of them have in common is packed once."""

from __future__ import annotations

from collections.abc import Mapping

from anymq.driver import Record

from .client.codec import bulk
from .messages import fields

_MOST = 512


class _Names(dict[str, str]):
    """Names of fields, with their lengths, up to where the length of the value comes."""

    def __missing__(self, name: str) -> str:
        head = f"${len(name.encode())}\r\n{name}\r\n$"
        if len(self) < _MOST:
            self[name] = head
        return head


_names = _Names()


def packed(record: Record) -> tuple[int, bytes, bytes]:
    """Return how many names and values the record has, and all of them but for its body: those that
    it shares, and the others. The body follows, and then the end of a line.
    """
    if record.original is not None:
        flat = fields(record)[:-1]
        return len(flat) + 1, b"", b"%b$%d\r\n" % (bulk(flat), len(record.body))
    count, shared = record.common.encoded(_shared)
    own = record.own
    names = _names
    texts = [f"{names[name]}{len(value)}\r\n{value}\r\n" for name, value in own.items()]
    texts.append(f"$4\r\ndata\r\n${len(record.body)}\r\n")
    text = "".join(texts)
    data = text.encode() if text.isascii() else _not_ascii(record)
    return count + 2 * len(own) + 2, shared, data


def _not_ascii(record: Record) -> bytes:
    flat = [part.encode() for pair in record.own.items() for part in pair]
    return b"%b$4\r\ndata\r\n$%d\r\n" % (bulk(flat), len(record.body))


def _shared(headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the number of names and values of `headers`, and how they are written."""
    flat = [part.encode() for pair in headers.items() for part in pair]
    return len(flat), bulk(flat)
