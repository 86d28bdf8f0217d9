"""`Transport`: the socket below the client, with taps that take frames before its decoder."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from . import codec

Tap = Callable[[int, bytes], bool]
"""Called with the kind and payload of each frame of its channel, in order. True takes the frame."""
BulkTap = Callable[[bytes, int, int], int]
"""Called with received data, the start of the first frame of its channel, and the end of the data.
It takes whole frames of its channel, and returns the start of the first frame that it left. The
channel's `Tap` is offered that one."""

_FRAME = codec.FRAME
_LARGEST_FRAME_BYTES = 64 * 1024 * 1024
_SILENCE_CHECKS = 4
"""Consecutive checks without data after which a connection counts as dead."""


class _FrameSplitter(asyncio.StreamReaderProtocol):
    """Cuts the stream into frames, offers them to the taps, and passes the rest on unchanged.

    It aborts a connection on which nothing has come for `silence` seconds. It counts checks instead
    of measuring time: data that came while this process stood still is read before the next check.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        taps: dict[int, Tap],
        bulk_taps: dict[int, BulkTap],
        silence: float,
    ) -> None:
        super().__init__(reader)
        self._check_interval = silence / _SILENCE_CHECKS
        self._heard = False
        self._silent_checks = 0
        self._check: asyncio.TimerHandle | None = None
        self._socket: asyncio.BaseTransport | None = None
        self._taps = taps
        self._bulk_taps = bulk_taps
        self._rest = b""
        self._raw = False
        self._passed_at = 0.0
        self._clock = asyncio.get_running_loop().time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = transport
        self._check_silence()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def _check_silence(self) -> None:
        self._silent_checks = 0 if self._heard else self._silent_checks + 1
        self._heard = False
        if self._silent_checks > _SILENCE_CHECKS and isinstance(
            self._socket, asyncio.WriteTransport
        ):
            self._socket.abort()
        else:
            loop = asyncio.get_running_loop()
            self._check = loop.call_later(self._check_interval, self._check_silence)

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
            kind, channel, size = _FRAME.unpack_from(data, at)
            # Not frames: the server's refusal of the protocol version.
            if size > _LARGEST_FRAME_BYTES or kind > 8:
                self._raw = True
                at = end
                break
            after = at + 8 + size
            if after > end:
                break
            bulk_tap = self._bulk_taps.get(channel)
            if bulk_tap is not None and (left := bulk_tap(data, at, end)) > at:
                taken = True
                if begin < at:
                    passed.append(data[begin:at])
                begin = at = left
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
        if taken and not passed and self._clock() - self._passed_at > 1:
            # The client gives a connection up on which it sees no frame.
            passed.append(codec.HEARTBEAT)
        if passed:
            self._passed_at = self._clock()
            super().data_received(b"".join(passed))


class Transport(TransportFactory):
    """Opens the one socket of a connection, writes to it beside the client, and aborts it.

    Data written here goes out at once and whole, so its frames never mix with the client's.
    """

    def __init__(self, *, close_timeout: float, silence: float) -> None:
        self.taps: dict[int, Tap] = {0: self._on_connection_frame}
        self.bulk_taps: dict[int, BulkTap] = {}
        self.blocked: str | None = None
        """The alarm for which the server reads no publishes now, or None."""
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
                lambda: _FrameSplitter(reader, self.taps, self.bulk_taps, self._silence),
                url.host or "",
                url.port or 0,
                ssl=context,
                # By default a dead peer delays the end of a TLS connection by 30 s.
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
        """Wait until all data has been sent, for at most `timeout` seconds.

        A lost connection raises nothing here; its channels report it.
        """
        if self._writer is None or not self._writer.transport.get_write_buffer_size():
            return
        with suppress(OSError):
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    def abort(self) -> None:
        """Cut the connection now, with all unsent data."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _on_connection_frame(self, kind: int, payload: bytes) -> bool:
        if kind == codec.METHOD:
            method = payload[:4]
            if method == codec.BLOCKED:
                self.blocked = payload[5:].decode("utf-8", "backslashreplace") or "an alarm"
            elif method == codec.UNBLOCKED:
                self.blocked = None
            elif method == codec.CLOSE:
                code = int.from_bytes(payload[4:6], "big")
                self.refusal = code, codec.text(payload[6 : 7 + payload[6]]) or ""
        return False
