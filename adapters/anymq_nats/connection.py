"""The connection as the rest of the adapter sees it: it heals itself, and nothing waits in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, TypeVar

import nats.errors

from anymq.driver import logger, supervise

from .client.internals import GuardedClient
from .client.parser import Sink
from .connect import Events, Target, close, connect
from .errors import NotPermitted, api_error

_log = logger("anymq.nats")
_DENIED = re.compile(
    r'permissions violation for (?:publish|subscription) to "([^"]+)"', re.IGNORECASE
)
_CHECK_EVERY = 5.0
_SILENCE = 30.0

T = TypeVar("T")


async def woken(event: asyncio.Event, wait: float) -> bool:
    """Return whether `event` was set within `wait` seconds."""
    if not event.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await event.wait()
    return event.is_set()


class Watcher:
    """Somebody who waits for the server and must hear when there is nothing to wait for."""

    def lost(self, error: Exception) -> None:
        """The connection broke; what was asked on it will not be answered."""

    def restored(self) -> None:
        """There is a connection again."""

    def denied(self, subject: str, error: Exception) -> None:
        """The server refused to publish or subscribe to `subject` (in lower case)."""


class Listener:
    """A subject whose messages go to `sink`, on this connection and on every later one."""

    def __init__(self, subject: str, sink: Sink) -> None:
        self.subject = subject
        self.sink = sink
        self.sid: int | None = None


class Link:
    """One connection to NATS, replaced by a new one whenever nats-py gives it up for good."""

    def __init__(self, target: Target, *, timeout: float, domain: str | None) -> None:
        self.timeout = timeout
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"
        self.ahead = 0.0
        """Seconds by which the server's clock is at most ahead of ours."""
        self.compared = 0.0
        """When the two were compared (monotonic)."""
        self._target = target
        self._client: GuardedClient | None = None
        self._watchers: set[Watcher] = set()
        self._listeners: list[Listener] = []
        self._restored = asyncio.Event()
        self._opening = asyncio.Lock()
        self._watchdog: asyncio.Task[None] | None = None
        self._closed = False

    def apart(self) -> Link:
        """Return another connection to the same server, for another thread's event loop."""
        return Link(self._target, timeout=self.timeout, domain=None)

    async def open(self, timeout: float) -> None:
        """Connect within `timeout` seconds, or raise and leave nothing open."""
        await self._connect(timeout)
        self._watchdog = supervise(self._watch(), name="anymq-nats-watch")

    @property
    def client(self) -> GuardedClient:
        """The client; after an outage that it did not survive, another one."""
        if self._client is None:
            raise nats.errors.ConnectionClosedError
        return self._client

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` from now on."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Tell `watcher` no more."""
        self._watchers.discard(watcher)

    async def ready(self, wait: float) -> GuardedClient:
        """Return the connected client, waiting at most `wait` seconds for a reconnect."""
        if self._closed:
            raise nats.errors.ConnectionClosedError
        client = self.client
        if client.is_connected:
            return client
        if client.is_closed:
            await self._replace(wait)
            return self.client
        await woken(self._restored, wait)
        if not self.client.is_connected:
            raise nats.errors.ConnectionReconnectingError
        return self.client

    def write(self, data: bytes) -> None:
        """Hand `data` to the socket; raises if there is no connection."""
        self.client.write(data)

    async def flush(self, data: bytes = b"", *, timeout: float | None = None) -> None:
        """Write `data` and return when the server has read it."""
        client = await self.ready(self.timeout if timeout is None else timeout)
        answered = client.write_ping(data)
        barrier = _Barrier(answered)
        self.watch(barrier)
        try:
            await asyncio.wait((answered,), timeout=self.timeout if timeout is None else timeout)
        finally:
            self.unwatch(barrier)
        if not answered.done():
            raise nats.errors.FlushTimeoutError
        answered.result()

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API; raises `APIError` with the server's code."""
        client = await self.ready(self.timeout)
        subject = f"{self.prefix}.{verb}"
        asked = time.time()
        request = client.request(
            subject, json.dumps(body).encode() if body else b"", timeout=self.timeout
        )
        answer: dict[str, Any] = json.loads((await self._unless_denied(request, subject)).data)
        if "error" in answer:
            raise api_error(answer["error"])
        if isinstance(stamp := answer.get("ts"), str):
            self.ahead = datetime.fromisoformat(stamp).timestamp() - asked
            self.compared = time.monotonic()
        return answer

    def server_time(self) -> float:
        """Return the server's clock, in seconds since the epoch, as far as it is known."""
        return time.time() + self.ahead

    async def listen(self, subject: str, sink: Sink) -> Listener:
        """Subscribe to `subject`, now and on every later connection."""
        listener = Listener(subject, sink)
        client = await self.ready(self.timeout)
        self._listeners.append(listener)
        try:
            await self._attach(client, listener)
        except BaseException:
            self._listeners.remove(listener)
            raise
        return listener

    def unlisten(self, listener: Listener) -> None:
        """Subscribe no more; what is on the way is dropped once `drop` is called."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        client = self._client
        if client is not None and listener.sid is not None and client.is_connected:
            client.write(b"UNSUB %d\r\n" % listener.sid)

    def drop(self, listener: Listener) -> None:
        """Forget a listener that has been unsubscribed."""
        client = self._client
        if client is not None and listener.sid is not None:
            client.detach(listener.sid)

    async def aclose(self, timeout: float = 2.0) -> None:
        """Close the connection and end all tasks; bounded when the server is dead."""
        self._closed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.wait((self._watchdog,), timeout=timeout)
        if self._client is not None:
            await close(self._client, timeout=timeout)

    async def _connect(self, timeout: float) -> None:
        events = Events(self._lost, self._error, self._reconnected, self._gave_up)
        client = await connect(self._target, events, timeout=timeout)
        try:
            for listener in self._listeners:
                await self._attach(client, listener)
            if self._closed:
                raise nats.errors.ConnectionClosedError
        except BaseException:
            await close(client, timeout=1.0)
            raise
        self._client = client

    async def _replace(self, wait: float) -> None:
        async with self._opening:
            if self.client.is_closed and not self._closed:
                await self._connect(max(wait, 1.0))
                self._tell_restored()

    @staticmethod
    async def _attach(client: GuardedClient, listener: Listener) -> None:
        listener.sid = await client.attach(listener.subject, listener.sink)

    async def _unless_denied(self, request: Awaitable[T], subject: str) -> T:
        """Await `request`, but not for its timeout when the user has no right to it."""
        refusal = _Refusal(subject)
        self.watch(refusal)
        asking = asyncio.ensure_future(request)
        try:
            await asyncio.wait((asking, refusal.refused), return_when="FIRST_COMPLETED")
            return asking.result() if asking.done() else refusal.refused.result()
        finally:
            self.unwatch(refusal)
            asking.cancel()
            if not refusal.refused.cancel() and not refusal.refused.cancelled():
                refusal.refused.exception()  # seen, so that asyncio does not complain

    def _lost(self, error: Exception) -> None:
        self._restored.clear()
        for watcher in tuple(self._watchers):
            watcher.lost(error)

    def _tell_restored(self) -> None:
        self._restored.set()
        for watcher in tuple(self._watchers):
            watcher.restored()

    async def _reconnected(self) -> None:
        _log.debug("reconnected")
        self._tell_restored()

    async def _gave_up(self) -> None:
        # Revoked credentials, for example; the next call opens another client.
        _log.debug("connection closed")
        self._lost(nats.errors.ConnectionClosedError())

    async def _error(self, error: Exception) -> None:
        _log.debug("%s: %s", type(error).__name__, error)
        if denied := _DENIED.search(str(error)):
            subject = denied[1].lower()
            for watcher in tuple(self._watchers):
                watcher.denied(subject, NotPermitted(str(error)))

    async def _watch(self) -> None:
        """Notice what nats-py does not: silence on an open connection, a reconnect that died."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            client = self.client
            try:
                if client.is_connected and time.monotonic() - client.heard > _SILENCE:
                    await client.fail(nats.errors.StaleConnectionError())
                elif client.is_stuck:
                    await close(client, timeout=1.0)
            except Exception as error:
                await self._error(error)


class _Barrier(Watcher):
    """Fails a wait for the server's PONG when the connection breaks."""

    def __init__(self, answered: asyncio.Future[bool]) -> None:
        self._answered = answered

    def lost(self, error: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)


class _Refusal(Watcher):
    """Becomes an error when the server refuses `subject`, or the connection breaks."""

    def __init__(self, subject: str) -> None:
        self._subject = subject.lower()
        self.refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def denied(self, subject: str, error: Exception) -> None:
        if subject == self._subject:
            self._set(error)

    def lost(self, error: Exception) -> None:
        self._set(error)

    def _set(self, error: Exception) -> None:
        if not self.refused.done():
            self.refused.set_exception(error)
