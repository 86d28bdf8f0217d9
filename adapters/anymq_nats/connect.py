"""Opening a client that fails fast, and closing one without waiting for a dead server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import nats.errors

from anymq.driver import URL, ConfigurationError, MissingDependency

from .client.internals import GuardedClient
from .errors import NotPermitted
from .options import NatsOptions, encrypted, tls_context

_PORT = 4222
# 10 s between pings, and the third unanswered one ends a dead connection after 30 s.
_PING_INTERVAL = 10
_UNANSWERED_PINGS = 2
_RECONNECT_WAIT = 0.5
_CONNECT_TIMEOUT = 5.0

Callback = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Events:
    """Whom a client tells what."""

    lost: Callable[[Exception], None]
    error: Callable[[Exception], Awaitable[None]]
    restored: Callback
    closed: Callback


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect. The credentials are not in the servers' URLs, so not in errors."""

    servers: list[str]
    secure: bool
    context: Callable[[], ssl.SSLContext]
    settings: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: URL, options: NatsOptions) -> Target:
        """Read `url` and `options`; raises `ConfigurationError`."""
        secure = encrypted(url, options)
        scheme = "tls" if secure else "nats"
        hosts = url.hosts or (("localhost", None),)
        servers = [
            f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORT}"
            for host, port in hosts
        ]
        if url.path not in ("", "/"):
            raise ConfigurationError(f"{url}: a NATS URL has no path")
        settings: dict[str, Any] = {
            "name": options.name,
            "inbox_prefix": options.inbox_prefix,
            "tls_handshake_first": options.tls_first,
        }
        if options.creds:
            _need_nkeys()
            settings["user_credentials"] = options.creds
        elif url.password is not None:
            settings |= {"user": url.username or "", "password": url.password}
        elif url.username is not None:
            settings["token"] = url.username
        # A server may want TLS though the scheme does not ask for it: then nats-py encrypts too.
        # Reading the system's certificates takes longer than all else, so they wait till then.
        context = cache(partial(tls_context, options))
        if secure:
            context()
        return cls(servers, secure, context, settings)


def _need_nkeys() -> None:
    try:
        import nkeys  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingDependency("creds needs nkeys: pip install 'nats-py[nkeys]'") from error


async def connect(target: Target, events: Events, *, timeout: float) -> GuardedClient:
    """Return a connected client, or raise what kept it from connecting.

    Every server is tried once; refused credentials end it at once. By default nats-py would go
    on for ever in silence.
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

    client = GuardedClient(secure=target.secure, context=target.context, on_lost=events.lost)
    attempt = loop.create_task(
        client.connect(
            list(target.servers),
            error_cb=on_error,
            reconnected_cb=events.restored,
            closed_cb=events.closed,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT,  # type: ignore[arg-type]
            connect_timeout=min(timeout, _CONNECT_TIMEOUT),  # type: ignore[arg-type]
            ping_interval=_PING_INTERVAL,
            max_outstanding_pings=_UNANSWERED_PINGS,
            flush_timeout=_CONNECT_TIMEOUT,
            pending_size=-1,  # nothing waits in the client for a reconnect
            **target.settings,
        )
    )
    try:
        await asyncio.wait((attempt, hopeless), timeout=timeout, return_when="FIRST_COMPLETED")
        # A server that hangs up instead of answering CONNECT looks connected to nats-py.
        if attempt.done() and not attempt.exception() and client.is_connected:
            return client
        if attempt.done() and (error := attempt.exception()):
            raise error
        raise _worst(failures)
    except BaseException:
        attempt.cancel()
        await close(client, timeout=1.0)
        raise
    finally:
        opening = False


def _refused(error: Exception) -> bool:
    return _says_no(error) or isinstance(error, nats.errors.SecureConnWantedError | ssl.SSLError)


def _says_no(error: Exception) -> bool:
    text = str(error).lower()
    return "authorization" in text or "authentication" in text


def _worst(failures: list[Exception]) -> Exception:
    """The failure that tells most: refused credentials rather than an unreachable neighbour."""
    for error in failures:
        if _refused(error):
            return NotPermitted(str(error)) if _says_no(error) else error
    return failures[-1] if failures else nats.errors.TimeoutError()


async def close(client: GuardedClient, *, timeout: float) -> None:
    """Close `client` within `timeout`, whatever the server does."""
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
