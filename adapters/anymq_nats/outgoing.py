"""Messages on their way to the server, and their header blocks."""

from __future__ import annotations

from collections.abc import Mapping

from anymq.driver import (
    CONTROL,
    NO_HEADERS,
    NO_SHARED_HEADERS,
    Received,
    SharedHeaders,
    is_control_header,
)

from .client.protocol import MESSAGE_ID, header_block, header_lines
from .messages import Delivered


class Outgoing:
    """One message: where it goes, its id for the server's deduplication, and what it says.

    Its headers are `extra`, `common` and `own`. What is the same in `original`, a message of which
    it is a copy, is sent byte for byte.
    """

    __slots__ = ("body", "common", "extra", "original", "own", "subject", "unique")

    def __init__(
        self,
        subject: str,
        unique: str,
        body: bytes,
        own: Mapping[str, str] = NO_HEADERS,
        common: SharedHeaders = NO_SHARED_HEADERS,
        *,
        extra: Mapping[str, str] = NO_HEADERS,
        original: Received | None = None,
    ) -> None:
        self.subject = subject
        self.unique = unique
        self.body = body
        self.own = own
        self.common = common
        self.extra = extra
        self.original = original


def block_of(message: Outgoing) -> bytes:
    """Return the header block of `message`; raises `BadHeaderError`."""
    if isinstance(message.original, Delivered):
        return _copied(message, message.original)
    common, own, extra = message.common, message.own, message.extra
    lines = [f"{name}: {value}\r\n" for name, value in own.items()]
    first = f"{MESSAGE_ID}: {message.unique}\r\n"
    if extra:
        first += _lines(extra)
    count = 1 + len(extra) + len(common) + len(lines)
    return header_block(f"{first}{common.encoded(_lines)}{''.join(lines)}", count)


def _copied(message: Outgoing, original: Delivered) -> bytes:
    """Return the header block of a copy: of what is the same in both, the very bytes."""
    came: dict[str, list[bytes]] = {}
    for line in header_lines(original.block or b""):
        name = line[: line.index(b":")].decode("utf-8", "backslashreplace")
        came.setdefault(name, []).append(line)
    headers = {**message.common, **message.own}
    written: dict[str, str] = {MESSAGE_ID: message.unique, **message.extra}
    raw: list[bytes] = []
    for name, value in headers.items():
        if name in came and original.headers.get(name) == value:
            raw += came[name]
        else:
            written[name] = value
    for name, lines in came.items():
        # What is no header for anymq, though one for the publisher's own consumers.
        lost = name not in headers and is_control_header(name)
        if lost and not name.lower().startswith((CONTROL, "nats-")):
            same = original.headers.get(name) == headers.get("ce-datacontenttype")
            raw += lines if same or name.lower() != "content-type" else []
    begin = header_block(_lines(written), len(written))
    return b"".join([begin[:-2], *(line + b"\r\n" for line in raw), b"\r\n"])


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
