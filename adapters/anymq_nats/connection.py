"""`Connection`: the connection to NATS, which recovers by itself and buffers nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar

import nats.errors

from anymq.driver import URL, ConfigurationError, Endpoint, MissingDependency, logger, supervise

from .client.compat import choose_client
from .client.transport import ClientFactory, RawClient, Setup, Sink
from .errors import NotPermitted, api_error
from .options import NatsOptions, encrypted, tls_context

_log = logger("anymq.nats")

_PORT = 4222
_PING_SECONDS = 10
_MAX_UNANSWERED_PINGS = 2
_RECONNECT_WAIT_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_WATCHDOG_SECONDS = 5.0
_DENIED = re.compile(
    r'permissions violation for (?:publish|subscription) to "([^"]+)"', re.IGNORECASE
)

T = TypeVar("T")


async def is_set(event: asyncio.Event, wait: float) -> bool:
    """Wait until `event` is set, at most `wait` seconds; return whether it is."""
    if not event.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await event.wait()
    return event.is_set()


@dataclass(frozen=True, slots=True)
class Target:
    """Servers and settings of a connection.

    The credentials are in the settings and not in the servers' URLs, so no error shows them.
    """

    servers: list[str]
    secure: bool
    context: Callable[[], ssl.SSLContext]
    client: ClientFactory
    settings: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: URL, options: NatsOptions) -> Target:
        """Read `url` and `options`; raises `ConfigurationError`."""
        secure = encrypted(url, options)
        scheme = "tls" if secure else "nats"
        servers = [f"{scheme}://{one}" for one in _addresses(url)]
        # The server may ask for TLS although the URL does not: then nats-py encrypts, too. The
        # context is made only then, because reading the system's certificates is slow.
        context = cache(partial(tls_context, options))
        if secure:
            context()
        client = choose_client(options.client, encrypt=secure, tls_first=options.tls_first)
        return cls(servers, secure, context, client, _settings(url, options))


def endpoints(url: URL, options: NatsOptions) -> list[Endpoint]:
    """Return the addresses of the servers; raises `ConfigurationError`."""
    if not encrypted(url, options):
        return _addresses(url)
    context, greets = tls_context(options), not options.tls_first
    return [replace(one, context=context, greets=greets) for one in _addresses(url)]


def _addresses(url: URL) -> list[Endpoint]:
    if url.path not in ("", "/"):
        raise ConfigurationError(f"{url}: a NATS URL has no path")
    hosts = url.hosts or (("localhost", None),)
    return [Endpoint(host=host, port=port or _PORT) for host, port in hosts]


def _settings(url: URL, options: NatsOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": options.name,
        "inbox_prefix": options.inbox_prefix,
        "tls_handshake_first": options.tls_first,
    }
    if options.creds:
        try:
            import nkeys  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise MissingDependency("creds needs nkeys: pip install 'nats-py[nkeys]'") from error
        settings["user_credentials"] = options.creds
    elif url.password is not None:
        login = _Login(url)
        settings |= {"user": login.user, "password": login.password}
    elif url.username is not None:
        settings["token"] = _Login(url).user
    return settings


class _Login:
    """The credentials that nats-py asks for whenever it connects, the user before the password."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def user(self) -> str:
        self._url = self._url.current()
        return self._url.username or ""

    def password(self) -> str:
        return self._url.password or ""


class Watcher:
    """A caller that waits for the server; it is called when no answer can come."""

    def lost(self, error: Exception) -> None:
        """The connection broke; requests sent on it will not be answered."""

    def restored(self) -> None:
        """The connection has been restored."""

    def denied(self, subject: str, error: Exception) -> None:
        """The server refused to publish or subscribe to `subject` (in lower case)."""


class Subscription:
    """A subject whose messages go to `sink`, on this connection and on every later one."""

    def __init__(self, subject: str, sink: Sink) -> None:
        self.subject = subject
        self.sink = sink
        self.number: int | None = None
        """The number by which the client knows it."""


class Connection:
    """One connection to NATS. A new client replaces one that nats-py has closed for good."""

    def __init__(self, target: Target, *, timeout: float, domain: str | None) -> None:
        self.timeout = timeout
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"
        self.clock_offset = 0.0
        """Seconds by which the server's clock is ahead of this process's, at most."""
        self.clock_compared = 0.0
        """Monotonic time at which the clocks were compared."""
        self._target = target
        self._client: RawClient | None = None
        self._watchers: set[Watcher] = set()
        self._subscriptions: list[Subscription] = []
        self._restored = asyncio.Event()
        self._opening = asyncio.Lock()
        self._watchdog: asyncio.Task[None] | None = None
        self._closed = False
        self._refusal: str | None = None
        """The reason for which the server refused the latest try to reconnect."""

    def separate(self) -> Connection:
        """Return another connection to the same server, for the event loop of another thread."""
        return Connection(self._target, timeout=self.timeout, domain=None)

    async def open(self, timeout: float) -> None:
        """Connect within `timeout` seconds, or raise and leave nothing open."""
        await self._connect(timeout)
        self._watchdog = supervise(self._watch(), name="anymq-nats-watch")

    @property
    def client(self) -> RawClient:
        """The current client."""
        if self._client is None:
            raise nats.errors.ConnectionClosedError
        return self._client

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` from now on."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Call `watcher` no more."""
        self._watchers.discard(watcher)

    async def ready(self, wait: float) -> RawClient:
        """Return the connected client, waiting at most `wait` seconds for a reconnect."""
        if self._closed:
            raise nats.errors.ConnectionClosedError
        client = self.client
        if client.is_connected:
            return client
        if client.is_closed:
            await self._replace(wait)
            return self.client
        await is_set(self._restored, wait)
        if not self.client.is_connected:
            if self._refusal is not None:
                raise NotPermitted(self._refusal)
            raise nats.errors.ConnectionReconnectingError
        return self.client

    def write(self, data: bytes) -> None:
        """Send `data`, as `RawClient.write`."""
        self.client.write(data)

    async def flush(self, data: bytes = b"", *, timeout: float | None = None) -> None:
        """Send `data`, and return when the server has read it."""
        wait = self.timeout if timeout is None else timeout
        client = await self.ready(wait)
        answered = client.write_ping(data)
        barrier = _Barrier(answered)
        self.watch(barrier)
        try:
            await asyncio.wait((answered,), timeout=wait)
        finally:
            self.unwatch(barrier)
        if not answered.done():
            raise nats.errors.FlushTimeoutError
        answered.result()

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request to JetStream's API; raises `APIError` with the server's code."""
        client = await self.ready(self.timeout)
        subject = f"{self.prefix}.{verb}"
        sent = time.time()
        request = client.request(
            subject, json.dumps(body).encode() if body else b"", timeout=self.timeout
        )
        answer: dict[str, Any] = json.loads((await self._unless_denied(request, subject)).data)
        if "error" in answer:
            raise api_error(answer["error"])
        if isinstance(stamp := answer.get("ts"), str):
            self.clock_offset = datetime.fromisoformat(stamp).timestamp() - sent
            self.clock_compared = time.monotonic()
        return answer

    def server_time(self) -> float:
        """Return the time of the server's clock, in seconds since the epoch, as far as known."""
        return time.time() + self.clock_offset

    async def subscribe(self, subject: str, sink: Sink) -> Subscription:
        """Subscribe `sink` to `subject`, now and on every later connection."""
        subscription = Subscription(subject, sink)
        client = await self.ready(self.timeout)
        self._subscriptions.append(subscription)
        try:
            await _attach(client, subscription)
        except BaseException:
            self._subscriptions.remove(subscription)
            raise
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Unsubscribe at the server. Messages on their way still reach the sink, until `drop`."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        client = self._client
        if client is not None and subscription.number is not None and client.is_connected:
            client.mute(subscription.number)

    def drop(self, subscription: Subscription) -> None:
        """Remove a subscription that has been unsubscribed."""
        client = self._client
        if client is not None and subscription.number is not None:
            client.detach(subscription.number)

    async def aclose(self, timeout: float = 2.0) -> None:
        """Close the connection and end all tasks; bounded when the server is dead."""
        self._closed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.wait((self._watchdog,), timeout=timeout)
        if self._client is not None:
            await close_client(self._client, timeout=timeout)

    async def _connect(self, timeout: float) -> None:
        events = _Events(self._lost, self._error, self._reconnected, self._gave_up)
        client = await open_client(self._target, events, timeout=timeout)
        try:
            for subscription in self._subscriptions:
                await _attach(client, subscription)
            if self._closed:
                raise nats.errors.ConnectionClosedError
        except BaseException:
            await close_client(client, timeout=1.0)
            raise
        self._client = client

    async def _replace(self, wait: float) -> None:
        async with self._opening:
            if self.client.is_closed and not self._closed:
                await self._connect(max(wait, 1.0))
                self._tell_restored()

    async def _unless_denied(self, request: Awaitable[T], subject: str) -> T:
        """Await `request`; raise at once if the server refuses it or the connection breaks."""
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
                refusal.refused.exception()  # retrieved, or asyncio logs it

    def _lost(self, error: Exception) -> None:
        self._restored.clear()
        for watcher in tuple(self._watchers):
            watcher.lost(error)

    def _tell_restored(self) -> None:
        self._refusal = None
        self._restored.set()
        for watcher in tuple(self._watchers):
            watcher.restored()

    async def _reconnected(self) -> None:
        _log.debug("reconnected to NATS")
        self._tell_restored()

    async def _gave_up(self) -> None:
        # After revoked credentials, for example; the next call opens another client.
        _log.debug("connection to NATS closed; the next call opens another")
        self._lost(nats.errors.ConnectionClosedError())

    async def _error(self, error: Exception) -> None:
        _log.debug("NATS client reported %s: %s", type(error).__name__, error)
        if not self.client.is_connected:
            self._refusal = str(error) if _denies_access(error) else None
        if denied := _DENIED.search(str(error)):
            subject = denied[1].lower()
            for watcher in tuple(self._watchers):
                watcher.denied(subject, NotPermitted(str(error)))

    async def _watch(self) -> None:
        """Replace a connection that is silent, and a client whose reconnect task has ended."""
        while True:
            await asyncio.sleep(_WATCHDOG_SECONDS)
            client = self.client
            try:
                if client.is_connected and client.is_silent:
                    await client.fail()
                elif client.is_stuck:
                    await close_client(client, timeout=1.0)
            except Exception as error:
                await self._error(error)


async def _attach(client: RawClient, subscription: Subscription) -> None:
    subscription.number = await client.attach(subscription.subject, subscription.sink)


class _Barrier(Watcher):
    """Fails a wait for the server's PONG when the connection breaks."""

    def __init__(self, answered: asyncio.Future[bool]) -> None:
        self._answered = answered

    def lost(self, error: Exception) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)


class _Refusal(Watcher):
    """A future that fails when the server refuses `subject` or the connection breaks."""

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


@dataclass(slots=True)
class _Events:
    """Callbacks of one client."""

    lost: Callable[[Exception], None]
    error: Callable[[Exception], Awaitable[None]]
    restored: Callable[[], Awaitable[None]]
    closed: Callable[[], Awaitable[None]]


async def open_client(target: Target, events: _Events, *, timeout: float) -> RawClient:
    """Return a connected client, or raise the error that kept it from connecting.

    Each server is tried once; refused credentials end the attempt at once. By default nats-py
    would retry without end and without a word.
    """
    loop = asyncio.get_running_loop()
    failures: list[Exception] = []
    hopeless: asyncio.Future[None] = loop.create_future()
    opening = True

    async def on_error(error: Exception) -> None:
        if not opening:
            await events.error(error)
            return
        failures.append(error)
        if (_refused(error) or len(failures) >= len(target.servers)) and not hopeless.done():
            hopeless.set_result(None)

    client = target.client(Setup(target.secure, target.context, events.lost))
    attempt = loop.create_task(
        client.open(
            list(target.servers),
            error_cb=on_error,
            reconnected_cb=events.restored,
            closed_cb=events.closed,
            connect_timeout=min(timeout, _CONNECT_SECONDS),
            **_CLIENT_SETTINGS,
            **target.settings,
        )
    )
    try:
        await asyncio.wait((attempt, hopeless), timeout=timeout, return_when="FIRST_COMPLETED")
        # A server that closes the connection instead of answering CONNECT looks connected.
        if attempt.done() and not attempt.exception() and client.is_connected:
            return client
        if attempt.done() and (error := attempt.exception()):
            raise error
        raise _most_telling(failures)
    except BaseException:
        attempt.cancel()
        await close_client(client, timeout=1.0)
        raise
    finally:
        opening = False


# A dead connection ends with the third unanswered ping, after 30 s.
_CLIENT_SETTINGS: dict[str, Any] = {
    "allow_reconnect": True,
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": _RECONNECT_WAIT_SECONDS,
    "ping_interval": _PING_SECONDS,
    "max_outstanding_pings": _MAX_UNANSWERED_PINGS,
    "flush_timeout": _CONNECT_SECONDS,
    "pending_size": -1,  # buffer nothing for a reconnect
}


def _refused(error: Exception) -> bool:
    return _denies_access(error) or isinstance(
        error, nats.errors.SecureConnWantedError | ssl.SSLError
    )


def _denies_access(error: Exception) -> bool:
    text = str(error).lower()
    return "authorization" in text or "authentication" in text


def _most_telling(failures: list[Exception]) -> Exception:
    """Return the error to raise: refused credentials rather than an unreachable server."""
    for error in failures:
        if _refused(error):
            return NotPermitted(str(error)) if _denies_access(error) else error
    return failures[-1] if failures else nats.errors.TimeoutError()


async def close_client(client: RawClient, *, timeout: float) -> None:
    """Close `client` within `timeout` seconds, even if the server does not answer."""
    client.abort()
    closing = asyncio.get_running_loop().create_task(client.close())
    try:
        await asyncio.wait((closing,), timeout=timeout)
    finally:
        if not closing.done():
            closing.cancel()
        elif not closing.cancelled():
            closing.exception()
        client.abort()
