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


class _Splitter(asyncio.StreamReaderProtocol):
    """Cuts the stream into frames, offers them to the taps, and passes the rest on unchanged."""

    def __init__(
        self, reader: asyncio.StreamReader, taps: dict[int, Tap], sweeps: dict[int, Sweep]
    ) -> None:
        super().__init__(reader)
        self._taps = taps
        self._sweeps = sweeps
        self._rest = b""
        self._raw = False
        self._alive = 0.0
        self._clock = asyncio.get_running_loop().time

    def data_received(self, data: bytes) -> None:
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

    def __init__(self, *, close_timeout: float) -> None:
        self.taps: dict[int, Tap] = {0: self._on_connection_frame}
        self.sweeps: dict[int, Sweep] = {}
        self.blocked: str | None = None
        """Why the server takes no publishes at the moment (an alarm), or None."""
        self.refusal: tuple[int, str] | None = None
        """The code and text with which the server closed the connection, or None."""
        self._close_timeout = close_timeout
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
                lambda: _Splitter(reader, self.taps, self.sweeps),
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
