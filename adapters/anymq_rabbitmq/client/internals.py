"""`ClientConnection` and `Channel`: the clients' connection and channels over a `Transport`."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar, cast

import aio_pika
import yarl
from aiormq import Channel as AmqpChannel
from aiormq.abc import AbstractConnection
from aiormq.exceptions import AMQPConnectionError, ConnectionNotAllowed, InvalidFrameError

from anymq.driver import ConnectionLost

from . import codec
from .transport import BulkTap, Tap, Transport

T = TypeVar("T")

CLOSE_TIMEOUT = 2.0
"""Seconds for closing a connection in good order; then it is aborted."""


async def bounded(work: Awaitable[T], timeout: float) -> T:
    """Return the result of `work`, or raise `TimeoutError` after `timeout` seconds.

    The client's coroutines cannot be awaited after their cancellation, because they clean up over
    the very connection that hangs. They also raise `CancelledError` without having been cancelled
    when a connection dies of missing heartbeats: that becomes `ConnectionLost`.
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
    """An open channel, and the transport that its frames are written to."""

    def __init__(self, client: AmqpChannel, transport: Transport, frame_max: int) -> None:
        self.client = client
        self.transport = transport
        self.number: int = client.number
        self.frame_max = frame_max
        self.closing = client.closing
        self._close_sent = False

    @property
    def is_open(self) -> bool:
        """Whether frames written to it can have an effect."""
        return not (self._close_sent or self.closing.done()) and self.transport.is_open

    @property
    def error(self) -> BaseException:
        """The reason why it is not open."""
        # The transport knows that the socket is gone a moment before the channel does.
        if self.closing.done() and not self.closing.cancelled():
            reason = self.closing.exception()
            if isinstance(reason, Exception):
                return reason
        return AMQPConnectionError("the connection was lost")

    async def close(self, timeout: float) -> None:
        """Close the channel; its unsettled deliveries return to their queue.

        The request is sent at once, also if this call is cancelled or the server does not answer.
        It is sent once, because the server closes the whole connection on a second one.
        """
        if self.is_open:
            self._close_sent = True
            self.transport.write(codec.close_channel(self.number))
        if self._close_sent:
            await asyncio.wait((self.closing,), timeout=timeout)

    def tap(self, tap: Tap, bulk_tap: BulkTap | None = None) -> None:
        """Offer the channel's frames to `tap`, and first, many in one call, to `bulk_tap`."""
        taps, bulk_taps, number = self.transport.taps, self.transport.bulk_taps, self.number
        taps[number] = tap
        if bulk_tap is not None:
            bulk_taps[number] = bulk_tap

        def remove(_: object) -> None:
            if taps.get(number) is tap:
                del taps[number]
                bulk_taps.pop(number, None)

        self.closing.add_done_callback(remove)


class ClientConnection:
    """One connection of aio-pika whose socket is a `Transport`; it never reconnects."""

    def __init__(
        self,
        address: yarl.URL,
        *,
        context: ssl.SSLContext | None,
        name: str,
        transport: Transport,
    ) -> None:
        """`name` is the connection's name in the server's tools."""
        self.native = aio_pika.Connection(
            address, ssl_context=context, client_properties={"connection_name": name}
        )
        self.native.kwargs["transport_factory"] = transport
        self._transport = transport

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as known."""
        return (
            self.native.transport is not None
            and not self._amqp.is_closed
            and self._transport.is_open
        )

    @property
    def blocked(self) -> str | None:
        """The alarm for which the server reads no publishes on this connection, or None."""
        return self._transport.blocked if self._transport.is_open else None

    @property
    def server_version(self) -> tuple[int, ...]:
        """The server's version, as three numbers."""
        version = str(self._amqp.server_properties.get("version"))
        return tuple(int(part) for part in re.findall(r"\d+", version)[:3])

    async def open(self, timeout: float) -> None:
        """Connect within `timeout` seconds; leaves nothing open on failure."""
        connecting = asyncio.ensure_future(self.native.connect())
        try:
            await bounded(connecting, timeout)
        except BaseException as error:
            self.abort()
            await asyncio.wait((connecting,), timeout=CLOSE_TIMEOUT)
            await self.native.close()
            if isinstance(error, InvalidFrameError) and self._transport.refusal:
                # The client does not expect a refusal at the last step, of the virtual host.
                raise ConnectionNotAllowed(self._transport.refusal[1]) from error
            raise

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel. Raises `RuntimeError` if the connection has just closed."""
        amqp, transport = self._amqp, self._transport
        client = await amqp.channel(publisher_confirms=confirms)
        return Channel(cast("AmqpChannel", client), transport, amqp.connection_tune.frame_max)

    def abort(self) -> None:
        """Cut the connection, with all unsent data."""
        self._transport.abort()

    async def close(self) -> None:
        """Disconnect; by force after `CLOSE_TIMEOUT` seconds."""
        try:
            if self._transport.is_open:
                await self._close_client()
        finally:
            self.abort()
        await self._close_client()

    async def _close_client(self) -> None:
        with suppress(TimeoutError, ConnectionLost, OSError):
            await bounded(self.native.close(), CLOSE_TIMEOUT)

    @property
    def _amqp(self) -> AbstractConnection:
        assert self.native.transport is not None
        return self.native.transport.connection
