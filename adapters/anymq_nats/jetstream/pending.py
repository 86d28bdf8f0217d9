"""Pull requests to one consumer, and the messages that have come."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from time import monotonic

import nats.errors
import nats.js.errors

from anymq.driver import SourceLost

from ..client.protocol import status
from ..connection import Link, Listener, Watcher, woken
from ..messages import Delivered

# A request that was under way when a server died is answered by nobody (nats-py #504), and a
# message may be given to it until the end: so requests are short.
_EXPIRY = 2.0
# How much longer the server's "408 Request Timeout" may take before the request counts as gone.
_GRACE = 1.0
# Reasons to end a request after which the next one may succeed at once.
_HARMLESS = (
    "batch completed",
    "leadership change",
    "server shutdown",
    "message size exceeds maxbytes",
)
# What one request brings at most. A message that is larger than its request never comes: so there
# is room for the largest, with its subjects.
_MOST_BYTES = 16 * 1024 * 1024
_SUBJECTS = 64 * 1024


@dataclass(slots=True)
class _Request:
    number: int
    left: int
    expires: float


class Pull(Watcher):
    """Asks a consumer for as many messages as there is credit for, and keeps what comes.

    Requests overlap: while one is being served the next is on its way. Nothing that has come is
    ever dropped here; what comes after its request has expired is handed out all the same. `wake`
    is set when something has happened; who shares it among several takes without waiting. What is
    not settled after `lease` seconds goes to somebody else.
    """

    def __init__(
        self,
        link: Link,
        stream: str,
        consumer: str,
        max_batch: int = 0,
        *,
        wake: asyncio.Event | None = None,
        lease: float = 0.0,
        max_bytes: int = _MOST_BYTES,
    ) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._lease = lease
        self._path = f"{stream}.{consumer}"
        self._next = f"{link.prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._max_batch = max_batch
        self._inbox = b""
        self._listener: Listener | None = None
        self._requests: deque[_Request] = deque()
        self._count = 0
        self._wake = wake or asyncio.Event()
        self._error: Exception | None = None
        self._gone: SourceLost | None = None
        self.buffer: deque[Delivered] = deque()

    async def open(self) -> None:
        """Make the inbox that messages are sent to."""
        inbox = self._link.client.new_inbox()
        self._inbox = f"{inbox}.".encode()
        self._listener = await self._link.listen(f"{inbox}.*", self._arrived)
        self._link.watch(self)

    async def take(self, limit: int, wait: float) -> list[Delivered]:
        """Return up to `limit` messages, waiting at most `wait` seconds for the first."""
        until = monotonic() + wait
        while not self.buffer:
            if wait > 0:
                self._wake.clear()
            await self._look(until)
            self._ask(limit)
            if not await self._woken(until - monotonic()):
                break
        else:
            # Asked before it runs dry, so that the server need not wait for us.
            self._ask_ahead(limit - len(self.buffer))
        if limit < len(self.buffer):
            return [self.buffer.popleft() for _ in range(limit)]
        taken = list(self.buffer)
        self.buffer.clear()
        return taken

    async def _look(self, until: float) -> None:
        """Raise what the server said; wait for a connection while there is none."""
        if self._gone is not None:
            raise self._gone
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, nats.errors.NoRespondersError):
                await self.check()
            raise error
        await self._link.ready(max(until - monotonic(), 0.0))

    async def check(self) -> dict[str, object]:
        """Return what the server knows of the consumer; raises `SourceLost` if nothing."""
        try:
            return await self._link.api(f"CONSUMER.INFO.{self._path}")
        except nats.js.errors.NotFoundError as error:
            raise SourceLost(f"the consumer {self._path} is gone") from error

    async def undelivered(self) -> object:
        """As `Source.undelivered`: how far the consumer has come, if messages wait (#5839)."""
        info = await self.check()
        if not info.get("num_pending") or info.get("paused") or _full(info):
            return None
        delivered = info.get("delivered")
        at = delivered.get("consumer_seq") if isinstance(delivered, dict) else None
        return None if at is None else (info.get("name"), at)

    def _ask_ahead(self, limit: int) -> None:
        if limit > 0 and self._gone is None and self._link.client.is_connected:
            self._ask(limit)

    def _ask(self, limit: int) -> None:
        """Request what there is credit for, unless most of it has been requested already."""
        now = monotonic()
        while self._requests and self._requests[0].expires + _GRACE < now:
            self._requests.popleft()
        pending = sum(request.left for request in self._requests if request.expires > now)
        wanted = limit - pending
        if self._max_batch:
            wanted = min(wanted, self._max_batch)
        if wanted <= 0 or pending > limit // 2:
            return
        self._count += 1
        most = max(self._max_bytes, self._link.client.max_payload + _SUBJECTS)
        request = {"batch": wanted, "expires": int(_EXPIRY * 1e9), "max_bytes": most}
        body = json.dumps(request).encode()
        self._link.write(
            b"PUB %b %b%d %d\r\n%b\r\n"
            % (self._next.encode(), self._inbox, self._count, len(body), body)
        )
        self._requests.append(_Request(self._count, wanted, now + _EXPIRY))

    async def _woken(self, wait: float) -> bool:
        """Return whether something happened within `wait` seconds."""
        return wait > 0 and await woken(self._wake, wait)

    def _signal(self) -> None:
        self._wake.set()

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        if not reply and (said := status(block)) is not None:
            self._said(int(subject[len(self._inbox) :]), *said)
            return
        now = monotonic()
        # The server serves requests in their order.
        while self._requests and self._requests[0].left <= 0:
            self._requests.popleft()
        taken = now
        if self._requests:
            request = self._requests[0]
            request.left -= 1
            # It was given to us before the request expired, even if we were not looking then.
            taken = min(now, request.expires)
        expires = taken + self._lease
        self.buffer.append(Delivered(self._link, subject, reply, data, block, expires))
        self._wake.set()

    def _said(self, number: int, code: int, description: str) -> None:
        """The server ended a request without, or before, filling it."""
        for request in self._requests:
            if request.number == number:
                self._requests.remove(request)
                break
        lower = description.lower()
        if code == 409 and ("consumer deleted" in lower or "push based" in lower):
            self._gone = SourceLost(f"{self._path}: {description}")
        elif code == 503:
            self._error = nats.errors.NoRespondersError()
        elif code not in (404, 408) and not (code == 409 and lower in _HARMLESS):
            self._error = nats.js.errors.APIError(code=code, description=description)
        self._signal()

    def lost(self, error: Exception) -> None:
        # Nobody will answer the requests; without them the next call asks anew at once.
        self._requests.clear()
        self._signal()

    def denied(self, subject: str, error: Exception) -> None:
        if subject == self._next.lower():
            self._requests.clear()
            self._error = error
            self._signal()

    def mute(self) -> None:
        """Take no more; what the server had sent by now still comes until `close`."""
        if self._listener is not None:
            self._link.unlisten(self._listener)

    def close(self) -> None:
        """Forget everything."""
        self._link.unwatch(self)
        if self._listener is not None:
            self._link.drop(self._listener)
        self.buffer.clear()
        self._signal()


def _full(info: dict[str, object]) -> bool:
    config = info.get("config")
    limit = config.get("max_ack_pending", 0) if isinstance(config, dict) else 0
    pending = info.get("num_ack_pending")
    return limit > 0 and isinstance(pending, int) and pending >= limit
