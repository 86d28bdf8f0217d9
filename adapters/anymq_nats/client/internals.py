"""`FastClient`: nats-py with guards, raw writes and sinks, by overriding its private methods.

`compat` lists the private parts. `tests/adapters/nats/test_client.py` checks that the installed
release still calls each of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import nats.errors

from anymq.driver import supervise

from .parser import SinkParser
from .transport import RawClient, Setup, Sink

if TYPE_CHECKING:
    from nats.aio.client import Srv

MAX_SILENCE_SECONDS = 30.0
"""Seconds without a byte from the server after which the connection is given up."""


class FastClient(RawClient):
    """A client that writes to the socket and parses messages itself.

    It sends nothing to a server before a connection that must be encrypted is, and `on_lost` is
    called before nats-py begins to reconnect.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._parser = self._ps = SinkParser(self, self._sink_failed)
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def server_info(self) -> Mapping[str, Any]:
        return self._server_info

    def write(self, data: bytes) -> None:
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if not self.is_connected or self._transport is None:
            raise nats.errors.ConnectionReconnectingError
        self._transport.write(data)

    def write_ping(self, data: bytes) -> asyncio.Future[bool]:
        # `Client.flush` does not suffice: it sends its PING ahead of its own pending buffer.
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.write(data + b"PING\r\n")
        self._pongs.append(answered)
        return answered

    async def attach(self, subject: str, sink: Sink) -> int:
        subscription = await self.subscribe(subject)
        number = subscription._id  # pyright: ignore[reportPrivateUsage]
        self._parser.sinks[b"%d" % number] = sink
        await self._written()
        return number

    def mute(self, number: int) -> None:
        self.write(b"UNSUB %d\r\n" % number)

    def detach(self, number: int) -> None:
        self._parser.sinks.pop(b"%d" % number, None)
        self._remove_sub(number)

    def abort(self) -> None:
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def fail(self) -> None:
        await self._process_op_err(nats.errors.StaleConnectionError())

    @property
    def is_silent(self) -> bool:
        # nats-py's own pings may not notice (nats-py #671).
        return monotonic() - self._parser.heard > MAX_SILENCE_SECONDS

    @property
    def is_stuck(self) -> bool:
        # A reconnect that raised ends nats-py's task (nats-py #671).
        task = self._reconnection_task
        return not self.is_connected and not self.is_closed and (task is None or task.done())

    async def _written(self) -> None:
        """Wait until nats-py has written its own commands so far, ahead of any later `write`."""
        # In a task of its own, because nats-py swallows a cancellation here.
        writing = asyncio.ensure_future(self._flush_pending(force_flush=True))
        await asyncio.wait((writing,))

    def _sink_failed(self, error: Exception) -> None:
        report = supervise(self._report(error), name="anymq-nats-error")
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    async def _report(self, error: Exception) -> None:
        await self._error_cb(error)

    # The methods below override nats-py.

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return self._setup.context()

    async def _connect_to_server(self, s: Srv) -> None:
        # A reconnect that failed half-way leaves its socket open, and its tasks reading from that
        # socket and from the next one.
        self.abort()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        # The last step before credentials are written, on connect and on every reconnect. nats-py
        # encrypts only if the server asks for it, whatever the URL says.
        writer = getattr(self._transport, "_io_writer", None)
        if self._setup.encrypt and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_pong(self) -> None:
        # nats-py sets the result of a future that `flush` and `rtt` cancel when they time out. The
        # exception would end the reading task.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed and not self.is_reconnecting:
            # An orderly close waits for a server that may never read again (nats-py #671).
            self.abort()
            self._setup.on_lost(e)
        await super()._process_op_err(e)
