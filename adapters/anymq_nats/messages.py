"""What the core gets to see of a message: hardly anything is read before somebody asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg

from anymq.driver import CONTROL, LazyHeaders, Received

from .client.protocol import Place, parse_headers, place

if TYPE_CHECKING:
    from .connection import Link

_CONTROL_LINE = b"\n" + CONTROL.encode()


class Headers(LazyHeaders):
    """The headers of a block."""

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
    """A message, and the right to settle it: its own token. What is not set is read when asked for.

    It was given to us `expires` minus the lease ago, or a little before. `settled` says that the
    server has been told. `noted` is the attempt that is noted of it, 0 for none.
    """

    __slots__ = ("block", "expires", "link", "noted", "reply", "settled", "subject")

    def __init__(
        self,
        link: Link,
        subject: bytes,
        reply: bytes,
        body: bytes,
        block: bytes | None,
        expires: float,
    ) -> None:
        self.link = link
        self.subject = subject
        self.reply = reply
        self.body = body
        self.block = block
        self.expires = expires
        self.settled = False
        self.noted = 0
        self.key = None
        self.content_type = None
        self.not_before = None
        self.partition = 0

    def __getattr__(self, name: str) -> Any:
        if name == "token":
            return self
        if name == "headers":
            self.headers = Headers(self.block)
        elif name in ("position", "redeliveries", "time"):
            self.place()
        elif name == "native":
            headers = dict(self.headers)
            subject, reply = self.subject.decode(), self.reply.decode()
            self.native = Msg(self.link.client, subject, reply, self.body, headers)
        else:
            raise AttributeError(name)
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

    def place(self) -> Place:
        """Return what the server says of the delivery."""
        found = place(self.reply)
        self.position = str(found.stream_sequence)
        self.time = found.time
        self.redeliveries = found.delivered - 1
        return found
