"""`Connection`: one connection to the server, re-established by the next call that needs it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import aio_pika
import yarl
from aiormq import Channel as AmqpChannel
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ProbableAuthenticationError,
)
from pamqp.exceptions import PAMQPException

from anymq.driver import URL, ConnectionLost, Endpoint, TransientError

from .client.internals import CLOSE_TIMEOUT, Channel, ClientConnection, bounded
from .client.transport import Transport
from .options import RabbitMQOptions, tls_context, virtual_host

T = TypeVar("T")

MAX_SILENT_HEARTBEATS = 2.0
"""Heartbeat intervals without data after which a connection is dead: the server sends two in each.
The client library takes 3.3 to 3.8 intervals to notice."""
PORTS = {"amqp": 5672, "amqps": 5671}
_REFUSED = (AuthenticationError, ProbableAuthenticationError)


class QueueDown(TransientError):
    """A queue exists, but no node that hosts it is up: for some seconds after a restart."""


class Connection:
    """One connection to one of the URL's hosts.

    A call that needs the connection while there is none connects once, and raises if no host
    answers; the core repeats the call. Nothing reconnects in the background: a "robust" connection
    of the client hides the outcome of a publish, and sometimes does not reconnect at all (aio-pika
    #288, #540, #563, #577, #588).
    """

    def __init__(
        self,
        url: URL,
        options: RabbitMQOptions,
        *,
        context: ssl.SSLContext | None,
        purpose: str,
        timeout: float,
    ) -> None:
        self._url = url
        self._options = options
        self._context = context
        self._purpose = purpose
        self._timeout = timeout
        self._hosts = _hosts(url)
        self._lock = asyncio.Lock()
        self._client: ClientConnection | None = None
        self._closed = False
        self.version: tuple[int, ...] = ()
        """The server's version, as of the last connection."""

    def another(self, purpose: str) -> Connection:
        """Return a connection to the same hosts, this one's first; the next call opens it."""
        made = Connection(
            self._url,
            self._options,
            context=self._context,
            purpose=purpose,
            timeout=self._timeout,
        )
        made._hosts = list(self._hosts)
        return made

    @property
    def native(self) -> aio_pika.Connection | None:
        """The client library's connection, None before the first."""
        return None if self._client is None else self._client.native

    @property
    def blocked(self) -> str | None:
        """The alarm for which the server reads no publishes on this connection, or None."""
        return None if self._client is None else self._client.blocked

    def is_open(self) -> bool:
        """Whether there is a connection that is not known to be dead."""
        return self._client is not None and self._client.is_open

    async def connect(self) -> None:
        """Return when there is a connection; tries each host at most once."""
        if self.is_open():
            return
        async with self._lock:
            if self.is_open():
                return
            self._check_not_closed()
            await self._drop()
            try:
                await self._connect_to_any()
                self._check_not_closed()
            except BaseException:
                await self._drop()
                raise

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel."""
        await self.connect()
        assert self._client is not None
        try:
            return await self.call(self._client.channel(confirms=confirms))
        except RuntimeError as error:  # The client's sign that the connection has just closed.
            raise AMQPConnectionError(str(error)) from error

    @asynccontextmanager
    async def request_channel(self) -> AsyncIterator[AmqpChannel]:
        """Open a channel for requests that the server may answer by closing it."""
        channel = await self.channel()
        try:
            yield channel.client
        finally:
            await channel.close(self._options.request_timeout)

    async def call(self, request: Awaitable[T]) -> T:
        """Return the answer to `request`. A connection without an answer in time is aborted."""
        try:
            return await bounded(request, self._options.request_timeout)
        except ChannelInvalidStateError as error:
            raise ConnectionLost(str(error)) from error
        except ChannelNotFoundEntity as error:
            # The server's report of a queue whose node is down or starting.
            if "down or inaccessible" in str(error):
                raise QueueDown(str(error)) from error
            raise
        except ChannelPreconditionFailed as error:
            if "not have a running replica" in str(error):  # The same, of a stream.
                raise QueueDown(str(error)) from error
            raise
        except TimeoutError:
            self.abort()
            raise ConnectionLost(
                f"no answer from RabbitMQ within {self._options.request_timeout:g} s"
            ) from None

    def abort(self) -> None:
        """Cut the connection; the next call makes a new one."""
        if self._client is not None:
            self._client.abort()

    async def aclose(self) -> None:
        """Disconnect for good, within `CLOSE_TIMEOUT` seconds or by force."""
        self._closed = True
        await self._drop()

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ConnectionLost("the connection has been closed")

    async def _drop(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connect_to_any(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failure: BaseException | None = None
        for tried, (host, port) in enumerate(list(self._hosts)):
            share = (deadline - loop.time()) / (len(self._hosts) - tried)
            try:
                await self._connect_to(host, port, timeout=max(share, 0.1))
            except _REFUSED as error:
                failure = error
            except (OSError, PAMQPException, AMQPError, ConnectionLost) as error:
                if not isinstance(failure, _REFUSED):
                    failure = error
            else:
                # The host that answered is tried first the next time.
                self._hosts = [self._hosts[tried], *self._hosts[:tried], *self._hosts[tried + 1 :]]
                return
        assert failure is not None
        if isinstance(failure, TimeoutError):
            raise ConnectionLost(f"no answer within {self._timeout:g} s") from failure
        raise failure

    async def _connect_to(self, host: str, port: int | None, *, timeout: float) -> None:
        client = ClientConnection(
            self._address(host, port),
            context=self._context,
            name=f"{self._options.connection_name} {self._purpose}",
            transport=Transport(
                close_timeout=CLOSE_TIMEOUT,
                silence=MAX_SILENT_HEARTBEATS * self._options.heartbeat,
            ),
        )
        await client.open(timeout)
        self._client = client
        self.version = client.server_version

    def _address(self, host: str, port: int | None) -> yarl.URL:
        url = self._url.current()
        return yarl.URL.build(
            scheme=url.scheme,
            user=quote(url.username or "guest", safe=""),
            password=quote(url.password or "guest", safe=""),
            host=f"[{host}]" if ":" in host else host,
            port=port or PORTS[url.scheme],
            path="/" + quote(virtual_host(url), safe=""),
            query_string=f"heartbeat={self._options.heartbeat}",
            encoded=True,
        )


def endpoints(url: URL, options: RabbitMQOptions) -> list[Endpoint]:
    """Return the addresses of the server's nodes; raises `ConfigurationError`."""
    context = tls_context(url, options)
    return [
        Endpoint(host=host, port=port or PORTS[url.scheme], context=context)
        for host, port in _hosts(url)
    ]


def _hosts(url: URL) -> list[tuple[str, int | None]]:
    return list(url.hosts) or [("localhost", None)]
