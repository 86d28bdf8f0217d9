"""nats-py's client with guards: nothing secret in clear, no dead reader, raw bytes on request.

It overrides private methods of nats-py, so `tests/adapters/nats/test_client.py` checks that the
installed release still calls each of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from anymq.driver import supervise

from .parser import Sink, SinkParser

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    Client: (
        "_connect_command",
        "_connect_to_server",
        "_error_cb",
        "_flush_pending",
        "_flusher_task",
        "_ping_interval_task",
        "_pongs",
        "_process_op_err",
        "_process_pong",
        "_ps",
        "_reading_task",
        "_reconnection_task",
        "_remove_sub",
        "_server_info",
        "_transport",
        "ssl_context",
    ),
    Subscription: ("_id",),
    TcpTransport: ("_io_writer",),
    Parser: ("parse", "reset"),
}
"""The parts of nats-py that `Driver.client_parts` asks for."""


class GuardedClient(Client):
    """A client that writes at once or not at all.

    `secure` refuses to say anything to a server before the connection is encrypted. `context` is
    asked for once a connection is. `on_lost` is called as soon as the connection breaks, before the
    client begins to reconnect.
    """

    def __init__(
        self,
        *,
        secure: bool,
        context: Callable[[], ssl.SSLContext],
        on_lost: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._secure = secure
        self._context = context
        self._on_lost = on_lost
        self._parser = self._ps = SinkParser(self, self._sink_failed)
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def heard(self) -> float:
        """When the last bytes came from the server (monotonic)."""
        return self._parser.heard

    @property
    def info(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._server_info

    def write(self, data: bytes) -> None:
        """Hand `data` to the socket, after all that was written before.

        Raises if there is no connection: what waits for one may leave long after its sender has
        given up, so nothing does (nats-py would keep it in its pending buffer).
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if not self.is_connected or self._transport is None:
            raise nats.errors.ConnectionReconnectingError
        self._transport.write(data)

    def write_ping(self, data: bytes) -> asyncio.Future[bool]:
        """Write `data` and a PING; the future is done when the server has read both.

        `Client.flush` does not promise that: it writes its PING ahead of its own pending buffer.
        """
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.write(data + b"PING\r\n")
        self._pongs.append(answered)
        return answered

    async def attach(self, subject: str, sink: Sink) -> int:
        """Subscribe to `subject` and give its messages to `sink`; returns what `detach` takes.

        nats-py subscribes again by itself when it reconnects. No later `write` overtakes it.
        """
        subscription = await self.subscribe(subject)
        self._parser.sinks[b"%d" % subscription._id] = sink  # pyright: ignore[reportPrivateUsage]
        await self.written()
        return subscription._id  # pyright: ignore[reportPrivateUsage]

    def detach(self, sid: int) -> None:
        """Drop what still comes for a subscription, and do not renew it on reconnect."""
        self._parser.sinks.pop(b"%d" % sid, None)
        self._remove_sub(sid)

    async def written(self) -> None:
        """Return when nats-py's own commands so far have been written, before any later `write`."""
        # In a task of its own, because nats-py swallows a cancellation here.
        writing = asyncio.ensure_future(self._flush_pending(force_flush=True))
        await asyncio.wait((writing,))

    def abort(self) -> None:
        """Break the connection at once, also when the peer takes nothing any more."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def fail(self, error: Exception) -> None:
        """Give the connection up and reconnect."""
        await self._process_op_err(error)

    @property
    def is_stuck(self) -> bool:
        """Whether nobody is left who would reconnect (nats-py #671)."""
        task = self._reconnection_task
        return not self.is_connected and not self.is_closed and (task is None or task.done())

    def _sink_failed(self, error: Exception) -> None:
        telling = supervise(self._tell(error), name="anymq-nats-error")
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, error: Exception) -> None:
        await self._error_cb(error)

    # What follows overrides nats-py.

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return self._context()

    async def _connect_to_server(self, s: Srv) -> None:
        # A reconnect that failed half-way leaves its socket open and its tasks reading from it,
        # and from the next one.
        self.abort()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        # The last step before credentials are written, on connect and on every reconnect. nats-py
        # encrypts only if the server asks for it, whatever the URL says.
        writer = getattr(self._transport, "_io_writer", None)
        if self._secure and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_pong(self) -> None:
        # A PONG for somebody who gave up must not end the reader: nats-py sets the result of a
        # future that `flush` and `rtt` cancel when they time out.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed and not self.is_reconnecting:
            # Closing politely waits for a peer that may never read again (nats-py #671).
            self.abort()
            self._on_lost(e)
        await super()._process_op_err(e)
