"""`SinkParser`: a protocol parser that gives messages to sinks in bulk.

nats-py matches up to seven regular expressions and awaits a coroutine for every message. Here all
messages in one piece of bytes are split in one loop. Everything that is not a message for a sink
goes to nats-py's parser, whole and in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import nats.errors
from nats.protocol.parser import Parser

from .transport import Sink

_MESSAGES = frozenset((b"MSG", b"HMSG"))


class SinkParser(Parser):
    """The parser of one client.

    `sinks` are by subscription number, as on the wire. `heard` is the monotonic time of the last
    bytes from the server. `failed` receives the exception of a sink, because an exception raised
    from `parse` would end nats-py's reading task for good.
    """

    def __init__(self, client: Any, failed: Callable[[Exception], Any]) -> None:
        self.sinks: dict[bytes, Sink] = {}
        self.heard = monotonic()
        self._failed = failed
        self._kept: list[bytes] = []
        super().__init__(client)

    def reset(self) -> None:
        super().reset()
        # A new list, because a `parse` of the old connection may still be running.
        self._kept = []
        self._missing = 0

    async def parse(self, data: bytes = b"") -> None:
        self.heard = monotonic()
        kept = self._kept
        if kept:
            kept.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(kept)
            kept.clear()
        at = 0
        while at < len(data):
            at, end = self._serve(data, at)
            if end > len(data):
                kept.append(data[at:])
                self._missing = end - len(data)
                return
            if end > at:
                await super().parse(data[at:end])
                at = end

    def _serve(self, data: bytes, at: int) -> tuple[int, int]:
        """Give messages from `at` on to their sinks, up to the first part that is not for a sink.

        Return begin and end of that part. An end beyond `data` tells how many more bytes are needed
        before another call can make progress.
        """
        sinks, size, find = self.sinks, len(data), data.find
        while at < size:
            line = find(b"\r\n", at)
            if line < 0:
                return at, size + 1
            words = data[at:line].split()
            begin = line + 2
            operation = words[0] if words else b""
            if operation not in _MESSAGES:
                return at, begin
            try:
                body = begin + int(words[-2]) if operation == b"HMSG" else begin
                end = begin + int(words[-1])
                reply = words[3] if len(words) - (operation == b"HMSG") == 5 else b""
                sid = words[2]
            except (ValueError, IndexError) as error:
                raise nats.errors.ProtocolError from error
            if end + 2 > size:
                return at, end + 2
            sink = sinks.get(sid)
            if sink is None:
                return at, end + 2
            try:
                sink(words[1], reply, data[body:end], data[begin:body] or None)
            except Exception as error:
                self._failed(error)
            at = end + 2
        return at, at
