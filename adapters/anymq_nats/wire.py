"""The NATS protocol as far as this adapter speaks it: publications out, headers and acks in.

nats-py encodes and decodes one message at a time, trims header values and replaces what is not
ASCII-safe; here whole batches become one buffer and values arrive as they were sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import nats.errors

ACK = b"PUB %b 4\r\n+ACK\r\n"
NAK = b"PUB %b 4\r\n-NAK\r\n"
TERM = b"PUB %b 5\r\n+TERM\r\n"
PROGRESS = b"PUB %b 4\r\n+WPI\r\n"
PING = b"PING\r\n"
MESSAGE_ID = "Nats-Msg-Id"

_VERSION = b"NATS/1.0"


def nak_later(reply: bytes, delay: float) -> bytes:
    """Return the publication that asks for redelivery after `delay` seconds."""
    body = b'-NAK {"delay": %d}' % int(delay * 1e9)
    return b"PUB %b %d\r\n%b\r\n" % (reply, len(body), body)


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the headers as they go over the wire; raises `BadHeaderError` for a line break."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    try:
        text = "".join(lines).encode()
    except UnicodeEncodeError as error:
        raise nats.errors.BadHeaderError("not valid Unicode") from error
    if text.count(b"\n") != len(lines) or text.count(b"\r") != len(lines):
        raise nats.errors.BadHeaderError("a line break")
    return b"%b\r\n%b\r\n" % (_VERSION, text)


def publication(subject: bytes, reply: bytes, block: bytes, body: bytes) -> bytes:
    """Return one message with headers, ready for the socket."""
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject,
        reply,
        len(block),
        len(block) + len(body),
        block,
        body,
    )


def status(block: bytes | None) -> tuple[int, str] | None:
    """Return code and description if the headers begin with a status line of the server."""
    if not block or not block.startswith(b"NATS/1.0 "):
        return None
    line = block[9 : block.index(b"\r\n")].decode("utf-8", "replace")
    code, _, description = line.strip().partition(" ")
    return (int(code), description.strip()) if code.isdigit() else None


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
