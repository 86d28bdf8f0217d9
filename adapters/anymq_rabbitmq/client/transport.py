"""The socket under the client library, with taps: frames of a channel that bypass its decoder."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from . import wire

Tap = Callable[[int, bytes], bool]
"""Called with the kind and payload of each frame of its channel, in order; True takes the frame."""
Sweep = Callable[[bytes, int, int], int]
"""Called with all that has come, and where the first frame of its channel begins and the last
ends; returns where the first begins that it has not taken. The tap is offered that one."""

_HEADER = wire.FRAME
_LARGEST = 64 * 1024 * 1024
_LOOKS = 4
"""How often a connection is found silent, one time after the other, before it is dead."""


class _Splitter(asyncio.StreamReaderProtocol):
    """Cuts the stream into frames, offers them to the taps, and passes the rest on unchanged.

    It cuts a connection on which nothing has come for `silence` seconds. Looks are counted, not
    time: what came while this process stood still is read before the next look.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        taps: dict[int, Tap],
        sweeps: dict[int, Sweep],
        silence: float,
    ) -> None:
        super().__init__(reader)
        self._pause = silence / _LOOKS
        self._heard = False
        self._missed = 0
        self._look: asyncio.TimerHandle | None = None
        self._socket: asyncio.BaseTransport | None = None
        self._taps = taps
        self._sweeps = sweeps
        self._rest = b""
        self._raw = False
        self._alive = 0.0
        self._clock = asyncio.get_running_loop().time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = transport
        self._listen()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _listen(self) -> None:
        self._missed = 0 if self._heard else self._missed + 1
        self._heard = False
        if self._missed > _LOOKS and isinstance(self._socket, asyncio.WriteTransport):
            self._socket.abort()
        else:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(self._pause, self._listen)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._raw:
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        passed: list[bytes] = []
        taken = False
        begin = at = 0
        end = len(data)
        while end - at >= 8:
            kind, channel, size = _HEADER.unpack_from(data, at)
            if size > _LARGEST or kind > 8:  # Not frames: a refusal of the protocol version.
                self._raw = True
                at = end
                break
            after = at + 8 + size
            if after > end:
                break
            sweep = self._sweeps.get(channel)
            if sweep is not None and (swept := sweep(data, at, end)) > at:
                taken = True
                if begin < at:
                    passed.append(data[begin:at])
                begin = at = swept
                continue
            tap = self._taps.get(channel)
            if tap is not None and tap(kind, data[at + 7 : after - 1]):
                taken = True
                if begin < at:
                    passed.append(data[begin:at])
                begin = after
            at = after
        if begin < at:
            passed.append(data[begin:at])
        self._rest = data[at:]
        if taken and not passed and self._clock() - self._alive > 1:
            # The client takes a connection on which it sees no frame for a broken one.
            passed.append(wire.HEARTBEAT)
        if passed:
            self._alive = self._clock()
            super().data_received(b"".join(passed))


class Transport(TransportFactory):
    """Opens the one socket of a connection, and remains the way to write to it and to cut it.

    What is written here goes out at once and whole, so that its frames cannot mix with those the
    client itself writes.
    """

    def __init__(self, *, close_timeout: float, silence: float) -> None:
        self.taps: dict[int, Tap] = {0: self._on_connection_frame}
        self.sweeps: dict[int, Sweep] = {}
        self.blocked: str | None = None
        """Why the server takes no publishes at the moment (an alarm), or None."""
        self.refusal: tuple[int, str] | None = None
        """The code and text with which the server closed the connection, or None."""
        self._close_timeout = close_timeout
        self._silence = silence
        self._writer: asyncio.StreamWriter | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by the client library."""
        context: ssl.SSLContext | None = None
        if url.scheme == "amqps":
            context = await kwargs["ssl_context_provider"].get_context()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        try:
            transport, protocol = await loop.create_connection(
                lambda: _Splitter(reader, self.taps, self.sweeps, self._silence),
                url.host or "",
                url.port or 0,
                ssl=context,
                # By default a dead peer holds up the end of a TLS connection for 30 s.
                ssl_shutdown_timeout=self._close_timeout if context else None,
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self._writer

    @property
    def is_open(self) -> bool:
        """Whether the socket can be written to."""
        return self._writer is not None and not self._writer.is_closing()

    def write(self, data: bytes) -> None:
        """Send whole frames. Raises `AMQPConnectionError` on a closed socket."""
        if self._writer is None or self._writer.is_closing():
            raise AMQPConnectionError("the connection is closed")
        self._writer.write(data)

    async def drain(self, timeout: float) -> None:
        """Wait until all has gone out, for at most `timeout` seconds. A lost connection is no
        error here: its own signs are seen elsewhere."""
        if self._writer is None or not self._writer.transport.get_write_buffer_size():
            return
        with suppress(OSError):
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    def abort(self) -> None:
        """Cut the connection now, unsent data and all."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _on_connection_frame(self, kind: int, payload: bytes) -> bool:
        if kind == wire.METHOD:
            method = payload[:4]
            if method == wire.BLOCKED:
                self.blocked = payload[5:].decode("utf-8", "backslashreplace") or "an alarm"
            elif method == wire.UNBLOCKED:
                self.blocked = None
            elif method == wire.CLOSE:
                code = int.from_bytes(payload[4:6], "big")
                self.refusal = code, wire.text(payload[6 : 7 + payload[6]]) or ""
        return False
