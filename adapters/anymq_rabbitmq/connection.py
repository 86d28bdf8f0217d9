"""`Link`: one connection, re-established by the next call that needs it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, cast
from urllib.parse import quote

import aio_pika
import yarl
from aio_pika.abc import UnderlayConnection
from aiormq import Channel as ClientChannel
from aiormq import Connection as ClientConnection
from aiormq.abc import AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.exceptions import PAMQPException

from anymq.driver import URL, ConnectionLost, TransientError

from . import wire
from .options import RabbitMQOptions, virtual_host
from .transport import Sweep, Tap, Transport

T = TypeVar("T")

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    aio_pika.Connection: ("connect", "kwargs", "transport"),
    UnderlayConnection: ("connection",),
    ClientConnection: (
        "_transport_factory",
        "connection_tune",
        "server_properties",
    ),
    ClientChannel: ("closing", "number", "rpc"),
    TransportFactory: ("create",),
}
"""The parts of aio-pika and aiormq that `Driver.client_parts` asks for."""

CLOSE_TIMEOUT = 2.0
SILENT_BEATS = 2.0
"""For how many heartbeats, of which the server sends two each, a live connection is never silent.
The client library takes 3.3 to 3.8 of them to notice."""
PORTS = {"amqp": 5672, "amqps": 5671}


class QueueDown(TransientError):
    """A queue is there, but no node that has it is up: for seconds only, after a restart."""


async def bounded(work: Awaitable[T], timeout: float) -> T:
    """Return what `work` returns, or raise `TimeoutError` after `timeout` seconds.

    The client's coroutines may neither be waited for after they were cancelled (they clean up over
    the very connection that hangs) nor trusted to raise `CancelledError` only when the
    caller was cancelled (they also do when a connection dies of missing heartbeats).
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=timeout)
    finally:
        if not task.done():
            task.add_done_callback(_retrieve)
            task.cancel()
    if not task.done():
        raise TimeoutError
    if task.cancelled() or isinstance(task.exception(), asyncio.CancelledError):
        raise ConnectionLost("the connection was lost")
    return task.result()


def _retrieve(task: asyncio.Future[T]) -> None:
    if not task.cancelled():
        task.exception()


class Channel:
    """An open channel, and the transport to write its frames to."""

    def __init__(self, client: ClientChannel, transport: Transport, frame_max: int) -> None:
        self.client = client
        self.transport = transport
        self.number: int = client.number
        self.frame_max = frame_max
        self.closing = client.closing
        self._told = False
        """Whether the server has been told that it is to be closed."""

    @property
    def is_open(self) -> bool:
        """Whether frames written to it can have an effect."""
        return not (self._told or self.closing.done()) and self.transport.is_open

    @property
    def error(self) -> BaseException:
        """Why it is not open."""
        # The socket is known to be gone a moment before the channel is.
        if self.closing.done() and not self.closing.cancelled():
            reason = self.closing.exception()
            if isinstance(reason, Exception):
                return reason
        return AMQPConnectionError("the connection was lost")

    async def close(self, timeout: float) -> None:
        """Close it; what was delivered on it and not settled goes back to its queue.

        The server is told at once: also when this is cancelled, or when it does not answer. It is
        told once: it ends the whole connection on a second time.
        """
        if self.is_open:
            self._told = True
            self.transport.write(wire.close_channel(self.number))
        if self._told:
            await asyncio.wait((self.closing,), timeout=timeout)

    def tap(self, tap: Tap, sweep: Sweep | None = None) -> None:
        """Offer the channel's frames to `tap` from now on; before, many in one, to `sweep`."""
        taps, sweeps, number = self.transport.taps, self.transport.sweeps, self.number
        taps[number] = tap
        if sweep is not None:
            sweeps[number] = sweep

        def remove(_: object) -> None:
            if taps.get(number) is tap:
                del taps[number]
                sweeps.pop(number, None)

        self.closing.add_done_callback(remove)


class Link:
    """One connection to one of the URL's hosts.

    A call that needs the connection while there is none connects, once, and raises if no host
    answers: the core repeats. Nothing here goes on in the background: a client's own "robust"
    connection hides how a publish ended, and has been seen not to come back (aio-pika #288, #540,
    #563, #577, #588).
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
        self._hosts = list(url.hosts) or [("localhost", None)]
        self._lock = asyncio.Lock()
        self._client: aio_pika.Connection | None = None
        self._silence = SILENT_BEATS * options.heartbeat
        self._transport = self._new_transport()
        self._closed = False
        self.version: tuple[int, ...] = ()
        """The server's version, as of the last connection."""

    @property
    def native(self) -> aio_pika.Connection | None:
        """The client library's connection, None before the first."""
        return self._client

    @property
    def blocked(self) -> str | None:
        """Why the server takes no publishes on this connection, or None."""
        return self._transport.blocked if self._transport.is_open else None

    def is_open(self) -> bool:
        """Whether there is a connection that is not known to be dead."""
        return (
            self._client is not None
            and self._client.transport is not None
            and not self._connection.is_closed
            and self._transport.is_open
        )

    async def connect(self) -> None:
        """Return when there is a connection; connects at most once, and to each host at most."""
        if self.is_open():
            return
        async with self._lock:
            if self.is_open():
                return
            self._check_not_closed()
            await self._drop()
            try:
                await self._connect()
                self._check_not_closed()
            except BaseException:
                await self._drop()
                raise

    def _check_not_closed(self) -> None:
        if self._closed:
            raise ConnectionLost("the connection has been closed")

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel."""
        await self.connect()
        connection, transport = self._connection, self._transport
        try:
            client = await self.call(connection.channel(publisher_confirms=confirms))
        except RuntimeError as error:  # How the client says that the connection has just closed.
            raise AMQPConnectionError(str(error)) from error
        return Channel(
            cast("ClientChannel", client), transport, connection.connection_tune.frame_max
        )

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[ClientChannel]:
        """A channel for requests that the server may answer by closing it."""
        channel = await self.channel()
        try:
            yield channel.client
        finally:
            await channel.close(self._options.request_timeout)

    async def call(self, request: Awaitable[T]) -> T:
        """Return the answer to `request`. One that does not come means the connection is dead."""
        try:
            return await bounded(request, self._options.request_timeout)
        except ChannelInvalidStateError as error:
            raise ConnectionLost(str(error)) from error
        except ChannelNotFoundEntity as error:
            # So a queue is reported whose node is down, or just coming up.
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
        """Give the connection up; the next call makes a new one."""
        self._transport.abort()

    async def aclose(self) -> None:
        """Disconnect, by force where it does not go well; bounded."""
        self._closed = True
        await self._drop()

    @property
    def _connection(self) -> AbstractConnection:
        assert self._client is not None
        assert self._client.transport is not None
        return self._client.transport.connection

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        failure: BaseException | None = None
        for tried, (host, port) in enumerate(list(self._hosts)):
            share = (deadline - loop.time()) / (len(self._hosts) - tried)
            try:
                await self._connect_to(host, port, timeout=max(share, 0.1))
            except (AuthenticationError, ProbableAuthenticationError) as error:
                failure = error
            except (OSError, PAMQPException, AMQPError, ConnectionLost) as error:
                if not isinstance(failure, AuthenticationError | ProbableAuthenticationError):
                    failure = error
            else:
                # The host that answered is the first to be asked the next time.
                self._hosts = [self._hosts[tried], *self._hosts[:tried], *self._hosts[tried + 1 :]]
                return
        assert failure is not None
        if isinstance(failure, TimeoutError):
            raise ConnectionLost(f"no answer within {self._timeout:g} s") from failure
        raise failure

    def _new_transport(self) -> Transport:
        return Transport(close_timeout=CLOSE_TIMEOUT, silence=self._silence)

    async def _connect_to(self, host: str, port: int | None, *, timeout: float) -> None:
        transport = self._new_transport()
        address = yarl.URL.build(
            scheme=self._url.scheme,
            user=quote(self._url.username or "guest", safe=""),
            password=quote(self._url.password or "guest", safe=""),
            host=f"[{host}]" if ":" in host else host,
            port=port or PORTS[self._url.scheme],
            path="/" + quote(virtual_host(self._url), safe=""),
            query_string=f"heartbeat={self._options.heartbeat}",
            encoded=True,
        )
        client = aio_pika.Connection(
            address,
            ssl_context=self._context,
            client_properties={
                "connection_name": f"{self._options.connection_name} {self._purpose}"
            },
        )
        client.kwargs["transport_factory"] = transport
        connecting = asyncio.ensure_future(client.connect())
        try:
            await bounded(connecting, timeout)
        except BaseException as error:
            transport.abort()
            await asyncio.wait((connecting,), timeout=CLOSE_TIMEOUT)
            await client.close()
            if isinstance(error, InvalidFrameError) and transport.refusal:
                # The client does not expect a refusal at the last step, of the virtual host.
                raise ConnectionNotAllowed(transport.refusal[1]) from error
            raise
        self._client, self._transport = client, transport
        version = str(self._connection.server_properties.get("version"))
        self.version = tuple(int(part) for part in re.findall(r"\d+", version)[:3])

    async def _drop(self) -> None:
        client, transport = self._client, self._transport
        if client is None:
            return
        try:
            if transport.is_open:
                with suppress(TimeoutError, ConnectionLost, OSError):
                    await bounded(client.close(), CLOSE_TIMEOUT)
        finally:
            transport.abort()
        with suppress(TimeoutError, ConnectionLost, OSError):
            await bounded(client.close(), CLOSE_TIMEOUT)
