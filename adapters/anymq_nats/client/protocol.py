"""The NATS protocol as far as this adapter speaks it: publications out, headers and acks in.

nats-py encodes and decodes one message at a time, trims header values and replaces what is not
ASCII-safe; here whole batches become one buffer and values arrive as they were sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nats.errors

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
PROGRESS = b"+WPI"
MESSAGE_ID = "Nats-Msg-Id"


def answers(verb: bytes, replies: Sequence[bytes]) -> bytes:
    """Return the publications that say `verb` to all of `replies`."""
    if not replies:
        return b""
    rest = b" %d\r\n%b\r\n" % (len(verb), verb)
    return b"PUB " + (rest + b"PUB ").join(replies) + rest


def nak_later(reply: bytes, delay: float) -> bytes:
    """Return the publication that asks for redelivery after `delay` seconds."""
    body = b'-NAK {"delay": %d}' % int(delay * 1e9)
    return b"PUB %b %d\r\n%b\r\n" % (reply, len(body), body)


def header_block(lines: str, count: int) -> bytes:
    """Return `count` header lines as they go over the wire.

    Raises `BadHeaderError` where a header holds a line break, or what is not Unicode.
    """
    if lines.count("\n") != count or lines.count("\r") != count:
        raise nats.errors.BadHeaderError("a line break")
    try:
        return f"NATS/1.0\r\n{lines}\r\n".encode()
    except UnicodeEncodeError as error:
        raise nats.errors.BadHeaderError("not valid Unicode") from error


def status(block: bytes | None) -> tuple[int, str] | None:
    """Return code and description if the headers begin with a status line of the server."""
    if not block or not block.startswith(b"NATS/1.0 "):
        return None
    line = block[9 : block.index(b"\r\n")].decode("utf-8", "replace")
    code, _, description = line.strip().partition(" ")
    return (int(code), description.strip()) if code.isdigit() else None


def header_lines(block: bytes) -> list[bytes]:
    """Return the lines of `block` that are headers, as they are, but for those with line breaks."""
    lines = block.split(b"\r\n")[1:-2]
    return [line for line in lines if b":" in line and b"\n" not in line and b"\r" not in line]


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of `block`; of several with one name the first counts."""
    lines = block.decode("utf-8", "backslashreplace").split("\r\n")[1:-2]
    try:
        found = dict([line.split(": ", 1) for line in lines])
    except ValueError:
        return _parse_each(lines)
    # Some name came twice, or some line has no blank after its first colon.
    return found if len(found) == len(lines) and ":" not in "".join(found) else _parse_each(lines)


def _parse_each(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            # One blank after the colon belongs to the form, any more to the value.
            found.setdefault(name, value[1:] if value[:1] == " " else value)
    return found


@dataclass(slots=True)
class Place:
    """What the server says of a delivery, in the subject that acknowledges it."""

    delivered: int
    stream_sequence: int
    consumer_sequence: int
    time: float
    pending: int
    """How many more there were for the consumer then."""


def place(reply: bytes) -> Place:
    """Read `$JS.ACK.(<domain>.<account>.)<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.…`."""
    parts = reply.split(b".")
    at = 4 if len(parts) == 9 else 6
    delivered, stream, consumer, nanoseconds, pending = map(int, parts[at : at + 5])
    return Place(delivered, stream, consumer, nanoseconds / 1e9, pending)
