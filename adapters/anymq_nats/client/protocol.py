"""The NATS protocol as far as the adapter speaks it: settlements, header blocks, ack subjects.

nats-py encodes and decodes one message at a time, trims header values and replaces bytes that are
not UTF-8. Here a whole batch becomes one buffer, and values arrive as they were sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nats.errors

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
PROGRESS = b"+WPI"
MESSAGE_ID = "Nats-Msg-Id"


def settlements(verb: bytes, replies: Sequence[bytes]) -> bytes:
    """Return the commands that publish `verb` to every ack subject in `replies`."""
    if not replies:
        return b""
    rest = b" %d\r\n%b\r\n" % (len(verb), verb)
    return b"PUB " + (rest + b"PUB ").join(replies) + rest


def delayed_nak(reply: bytes, delay: float) -> bytes:
    """Return the command that asks for redelivery after `delay` seconds."""
    body = b'-NAK {"delay": %d}' % int(delay * 1e9)
    return publish(reply, body)


def publish(subject: bytes, body: bytes = b"", reply: bytes = b"") -> bytes:
    """Return the command that publishes `body` without headers."""
    return b"PUB %b %b%d\r\n%b\r\n" % (subject, reply and reply + b" ", len(body), body)


def lines_of(headers: Mapping[str, str]) -> str:
    """Return `headers` as lines of a header block."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def header_block(lines: str, count: int) -> bytes:
    """Return the header block of `count` header lines.

    Raises `BadHeaderError` if a header contains a line break or is not valid Unicode.
    """
    if lines.count("\n") != count or lines.count("\r") != count:
        raise nats.errors.BadHeaderError("a line break")
    try:
        return f"NATS/1.0\r\n{lines}\r\n".encode()
    except UnicodeEncodeError as error:
        raise nats.errors.BadHeaderError("not valid Unicode") from error


def status(block: bytes | None) -> tuple[int, str] | None:
    """Return code and description of the server's status line; None if the block has none."""
    if not block or not block.startswith(b"NATS/1.0 "):
        return None
    line = block[9 : block.index(b"\r\n")].decode("utf-8", "replace")
    code, _, description = line.strip().partition(" ")
    return (int(code), description.strip()) if code.isdigit() else None


def header_lines(block: bytes) -> list[bytes]:
    """Return the raw header lines of `block`, without lines that contain a bare line break."""
    lines = block.split(b"\r\n")[1:-2]
    return [line for line in lines if b":" in line and b"\n" not in line and b"\r" not in line]


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of `block`; of several with one name, the first."""
    lines = block.decode("utf-8", "backslashreplace").split("\r\n")[1:-2]
    try:
        found = dict([line.split(": ", 1) for line in lines])
    except ValueError:
        return _parse_each(lines)
    # A name came twice, or a line has no blank after its first colon.
    return found if len(found) == len(lines) and ":" not in "".join(found) else _parse_each(lines)


def _parse_each(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            # One blank after the colon belongs to the format, any more to the value.
            found.setdefault(name, value[1:] if value[:1] == " " else value)
    return found


@dataclass(slots=True)
class DeliveryInfo:
    """Details of one delivery, which the server writes into its ack subject."""

    delivered: int
    stream_sequence: int
    consumer_sequence: int
    time: float
    pending: int
    """Messages that the consumer had yet to deliver after this one."""


def delivery_info(reply: bytes) -> DeliveryInfo:
    """Parse `$JS.ACK.(<domain>.<account>.)<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.…`."""
    parts = reply.split(b".")
    at = 4 if len(parts) == 9 else 6
    delivered, stream, consumer, nanoseconds, pending = map(int, parts[at : at + 5])
    return DeliveryInfo(delivered, stream, consumer, nanoseconds / 1e9, pending)
