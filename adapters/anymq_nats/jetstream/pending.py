"""`PullRequests`: pending pull requests of one JetStream consumer, and the messages buffered."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from time import monotonic

import nats.errors
import nats.js.errors

from anymq.driver import SourceLost

from ..client.protocol import publish, status
from ..connection import Connection, Subscription, Watcher, is_set
from ..messages import Delivered

# No server answers a request that was pending when a server died (nats-py #504), and until its end
# messages may be given to it. So requests are short.
_REQUEST_SECONDS = 2.0
# How long the server's "408 Request Timeout" may be late.
_GRACE_SECONDS = 1.0
# Reasons to end a request after which the next one may succeed at once.
_HARMLESS = (
    "batch completed",
    "leadership change",
    "server shutdown",
    "message size exceeds maxbytes",
)
_MAX_REQUEST_BYTES = 16 * 1024 * 1024
# A message larger than its request is never delivered, so a request has room for the largest body
# and its subjects.
_SUBJECT_BYTES = 64 * 1024


@dataclass(slots=True)
class _Request:
    number: int
    left: int
    expires: float
    overdue: bool = False


class PullRequests(Watcher):
    """Requests to one consumer for as many messages as there is credit for.

    Requests overlap: the next one is sent while the server serves the last. A message that has
    arrived is never dropped, even if its request has expired. `wake` is set when a message or an
    error has arrived; readers that share one call `take` without waiting. `lease` is the ack wait
    of the consumer in seconds.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        max_batch: int = 0,
        *,
        wake: asyncio.Event | None = None,
        lease: float = 0.0,
        max_bytes: int = _MAX_REQUEST_BYTES,
    ) -> None:
        self._connection = connection
        self._max_bytes = max_bytes
        self._lease = lease
        self._path = f"{stream}.{consumer}"
        self._next = f"{connection.prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._max_batch = max_batch
        self._inbox = b""
        self._subscription: Subscription | None = None
        self._requests: deque[_Request] = deque()
        self._count = 0
        self._wake = wake or asyncio.Event()
        self._error: Exception | None = None
        self._gone: SourceLost | None = None
        self.buffer: deque[Delivered] = deque()

    async def open(self) -> None:
        """Subscribe to the inbox that the server sends messages to."""
        inbox = self._connection.client.new_inbox()
        self._inbox = f"{inbox}.".encode()
        self._subscription = await self._connection.subscribe(f"{inbox}.*", self._arrived)
        self._connection.watch(self)

    async def take(self, limit: int, wait: float) -> list[Delivered]:
        """Return up to `limit` messages, waiting at most `wait` seconds for the first."""
        until = monotonic() + wait
        while not self.buffer:
            if wait > 0:
                self._wake.clear()
            await self._check(until)
            self._request(limit)
            left = until - monotonic()
            if not (left > 0 and await is_set(self._wake, left)):
                break
        else:
            self._request_ahead(limit - len(self.buffer))
        if limit < len(self.buffer):
            return [self.buffer.popleft() for _ in range(limit)]
        taken = list(self.buffer)
        self.buffer.clear()
        return taken

    async def _check(self, until: float) -> None:
        """Raise the error that the server reported; wait for a connection if there is none."""
        if self._gone is not None:
            raise self._gone
        if self._error is not None:
            error, self._error = self._error, None
            if isinstance(error, nats.errors.NoRespondersError):
                await self.info()
            raise error
        await self._connection.ready(max(until - monotonic(), 0.0))

    async def info(self) -> dict[str, object]:
        """Return the server's information on the consumer; raises `SourceLost` if it is gone."""
        try:
            return await self._connection.api(f"CONSUMER.INFO.{self._path}")
        except nats.js.errors.NotFoundError as error:
            raise SourceLost(f"the consumer {self._path} does not exist any more") from error

    async def undelivered(self) -> object:
        """As `Reader.undelivered`: the consumer's progress if messages wait (nats-server #5839)."""
        info = await self.info()
        if not info.get("num_pending") or info.get("paused") or _is_full(info):
            return None
        delivered = info.get("delivered")
        at = delivered.get("consumer_seq") if isinstance(delivered, dict) else None
        return None if at is None else (info.get("name"), at)

    def _request_ahead(self, limit: int) -> None:
        """Request the next messages before the buffer is empty, so the server need not wait."""
        if limit > 0 and self._gone is None and self._connection.client.is_connected:
            self._request(limit)

    def _request(self, limit: int) -> None:
        """Request `limit` messages, unless more than half of them have been requested already."""
        now = monotonic()
        self._forget_overdue(now)
        pending = sum(request.left for request in self._requests if request.expires > now)
        wanted = limit - pending
        if self._max_batch:
            wanted = min(wanted, self._max_batch)
        if wanted <= 0 or pending > limit // 2:
            return
        self._count += 1
        client, wait = self._connection.client, _REQUEST_SECONDS
        if client.delivers_late and self._lease:
            # A lease is known to have begun only within its request.
            wait = min(wait, self._lease / 10)
        most = max(self._max_bytes, client.max_payload + _SUBJECT_BYTES)
        request = {"batch": wanted, "expires": int(wait * 1e9), "max_bytes": most}
        body = json.dumps(request).encode()
        reply = b"%b%d" % (self._inbox, self._count)
        client.write(publish(self._next.encode(), body, reply))
        self._requests.append(_Request(self._count, wanted, now + wait))

    def _forget_overdue(self, now: float) -> None:
        """Forget requests that were overdue at the last call already.

        After a stall of the process, messages of an overdue request may still be on their way from
        the client, and their leases began before it expired.
        """
        while self._requests and self._requests[0].overdue:
            self._requests.popleft()
        for request in self._requests:
            request.overdue = request.expires + _GRACE_SECONDS < now

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        if not reply and (reason := status(block)) is not None:
            self._ended(int(subject[len(self._inbox) :]), *reason)
            return
        now = monotonic()
        # The server serves requests in their order.
        while self._requests and self._requests[0].left <= 0:
            self._requests.popleft()
        taken = now
        if self._requests:
            request = self._requests[0]
            request.left -= 1
            # The lease began before the request expired, even if this process stalled meanwhile.
            taken = min(now, request.expires)
        expires = taken + self._lease
        self.buffer.append(Delivered(self._connection, subject, reply, data, block, expires))
        self._wake.set()

    def _ended(self, number: int, code: int, description: str) -> None:
        """Note that the server ended a request before it was filled, and why."""
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
        self._wake.set()

    def lost(self, error: Exception) -> None:
        # The server will not answer the requests; without them the next `take` sends a new one.
        self._requests.clear()
        self._wake.set()

    def denied(self, subject: str, error: Exception) -> None:
        if subject == self._next.lower():
            self._requests.clear()
            self._error = error
            self._wake.set()

    def mute(self) -> None:
        """Request no more; messages that the server has sent by now still arrive until `close`."""
        if self._subscription is not None:
            self._connection.unsubscribe(self._subscription)

    def close(self) -> None:
        """Drop the buffer and all requests."""
        self._connection.unwatch(self)
        if self._subscription is not None:
            self._connection.drop(self._subscription)
        self.buffer.clear()
        self._wake.set()


def _is_full(info: dict[str, object]) -> bool:
    """Return whether the consumer has as many unsettled messages as it may have."""
    config = info.get("config")
    limit = config.get("max_ack_pending", 0) if isinstance(config, dict) else 0
    pending = info.get("num_ack_pending")
    return limit > 0 and isinstance(pending, int) and pending >= limit
