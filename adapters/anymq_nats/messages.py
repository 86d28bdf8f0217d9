"""Messages in both directions: `Publication` on its way to the server, `Delivered` from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg

from anymq.driver import (
    CONTROL,
    NO_HEADERS,
    NO_SHARED_HEADERS,
    LazyHeaders,
    Received,
    SharedHeaders,
    is_control_header,
)

from .client.protocol import (
    MESSAGE_ID,
    DeliveryInfo,
    delivery_info,
    header_block,
    header_lines,
    lines_of,
    parse_headers,
)

if TYPE_CHECKING:
    from .connection import Connection

_CONTROL_LINE = b"\n" + CONTROL.encode()


class Publication:
    """A message to publish: its subject, its id for the server's deduplication, its content.

    Its headers are `extra`, `common` and `own`. Headers that are unchanged since `original`, the
    message that this one is a copy of, are sent byte for byte.
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

    @property
    def is_copy(self) -> bool:
        """Whether the server has stored the message before: a retry or a dead letter."""
        return any(name.startswith(CONTROL) for name in self.own)


def encode_headers(message: Publication) -> bytes:
    """Return the header block of `message`; raises `BadHeaderError`."""
    if isinstance(message.original, Delivered):
        return _copied_headers(message, message.original)
    common, own, extra = message.common, message.own, message.extra
    lines = [f"{name}: {value}\r\n" for name, value in own.items()]
    first = f"{MESSAGE_ID}: {message.unique}\r\n"
    if extra:
        first += lines_of(extra)
    count = 1 + len(extra) + len(common) + len(lines)
    return header_block(f"{first}{common.encoded(lines_of)}{''.join(lines)}", count)


def _copied_headers(message: Publication, original: Delivered) -> bytes:
    """Return the header block of a copy; unchanged headers keep their bytes."""
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
        # Headers that are none for anymq, but may be for other consumers of the topic.
        lost = name not in headers and is_control_header(name)
        if lost and not name.lower().startswith((CONTROL, "nats-")):
            same = original.headers.get(name) == headers.get("ce-datacontenttype")
            raw += lines if same or name.lower() != "content-type" else []
    begin = header_block(lines_of(written), len(written))
    return b"".join([begin[:-2], *(line + b"\r\n" for line in raw), b"\r\n"])


class Headers(LazyHeaders):
    """The headers of a header block, parsed at first use."""

    __slots__ = ("_block",)

    def __init__(self, block: bytes | None) -> None:
        self._block = block
        self._found = None

    @property
    def plain(self) -> bool:
        return not self._block or _CONTROL_LINE not in self._block

    def read(self) -> dict[str, str]:
        return parse_headers(self._block) if self._block else {}


class Delivered(Received):
    """One delivery, which is its own token. Attributes that are not set are decoded at first use.

    `expires` is the monotonic time at which its lease ends, or a little before. `settled` says
    that the server has read its settlement. `begun` is the attempt recorded for it, 0 for none.
    """

    __slots__ = ("begun", "block", "connection", "expires", "reply", "settled", "subject")

    def __init__(
        self,
        connection: Connection,
        subject: bytes,
        reply: bytes,
        body: bytes,
        block: bytes | None,
        expires: float,
    ) -> None:
        self.connection = connection
        self.subject = subject
        self.reply = reply
        self.body = body
        self.block = block
        self.expires = expires
        self.settled = False
        self.begun = 0
        self.key = None
        self.content_type = None
        self.not_before = None
        self.partition = 0

    def __getattr__(self, name: str) -> Any:
        if name == "token":
            return self
        if name == "headers":  # of every message, so without another call
            headers = self.headers = Headers(self.block)
            return headers
        try:
            decode = _DECODERS[name]
        except KeyError:
            raise AttributeError(name) from None
        decode(self)
        return getattr(self, name)

    @property
    def published(self) -> bool:
        return b"._retry." not in self.subject

    def header(self, name: str) -> str | None:
        block, before = self.block or b"", b"\r\n%b:" % name.encode()
        if (at := block.find(before)) < 0:
            return None
        begin = at + len(before)
        begin += block.startswith(b" ", begin)
        return block[begin : block.index(b"\r\n", begin)].decode("utf-8", "backslashreplace")

    def info(self) -> DeliveryInfo:
        """Decode the ack subject, and set the attributes that come from it."""
        found = delivery_info(self.reply)
        self.position = str(found.stream_sequence)
        self.time = found.time
        self.redeliveries = found.delivered - 1
        return found


def _decode_native(item: Delivered) -> None:
    subject, reply = item.subject.decode(), item.reply.decode()
    item.native = Msg(item.connection.client, subject, reply, item.body, dict(item.headers))


_DECODERS: Mapping[str, Callable[[Delivered], object]] = {
    "native": _decode_native,
    "position": Delivered.info,
    "redeliveries": Delivered.info,
    "time": Delivered.info,
}
"""By attribute, the function that sets it."""
