"""A TCP proxy that injects network faults."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from brokers.ports import HOST

CHUNK = 64 * 1024


@dataclass
class Way:
    """One direction of all links. Each chunk of data is delayed by `delay` seconds."""

    delay: float = 0.0
    bytes: int = 0
    """Bytes forwarded so far."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """While cleared, data are held back."""
    reset_after: int | None = None
    """Bytes after which the link is reset on both sides."""

    def __post_init__(self) -> None:
        self.open.set()


class Proxy:
    """Links from clients to a server, and the faults to inject into them.

    `up` is the direction to the server, `down` the one back; both apply to existing and future
    links. With `accepting=False` new links are refused. With `answering=False` they are accepted
    and get no answer, like those of a peer that vanished behind its router.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._port = port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._frozen: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.up, self.down = Way(), Way()
        self.accepting = True
        self.answering = True
        self.accepted = 0

    @property
    def port(self) -> int:
        """The port on which the proxy listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self._links |= self._frozen
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> int:
        """Reset all links, discarding data in transit; return their number."""
        links, self._links = self._links, set()
        for link in links:
            link.reset()
        return len(links)

    def stall(self, *ways: Way) -> None:
        """Forward nothing in these directions; links stay open and buffers fill."""
        for way in ways:
            way.open.clear()

    def vanish(self) -> None:
        """Simulate a vanished peer: nothing is forwarded and nothing is refused."""
        self.stall(self.up, self.down)
        self.answering = False

    def freeze(self) -> int:
        """Make existing links half-open and return their number; new links work."""
        links, self._links = self._links, set()
        self._frozen |= links
        for link in links:
            link.frozen = True
        return len(links)

    def heal(self) -> None:
        """End all faults; links that were cut or vanished stay closed."""
        if not self.answering:
            self.cut()
        self.accepting = self.answering = True
        for way in (self.up, self.down):
            way.delay, way.reset_after = 0.0, None
            way.open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepting:
            _reset(writer)
            return
        self.accepted += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            if not self.answering:
                await link.ended.wait()
                return
            try:
                there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
            except OSError:
                return
            link.there = there_writer
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, there_writer, self.up, link))
                pumps.create_task(self._pump(there_reader, writer, self.down, link))
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way, link: _Link
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if way.delay:
                    await asyncio.sleep(way.delay)
                await way.open.wait()
                if link.frozen:
                    continue
                if way.reset_after is not None:
                    data, rest = data[: way.reset_after], data[way.reset_after :]
                    way.reset_after -= len(data)
                    if rest:
                        # The other end receives part of an answer, then the reset.
                        writer.write(data)
                        way.reset_after = None
                        link.reset()
                        return
                way.bytes += len(data)
                writer.write(data)
                await writer.drain()
        if link.frozen:
            return
        # Broker clients never half-close, so one closed end closes the link.
        link.close()


class _Link:
    """A client's connection and, once opened, the proxy's connection to the server."""

    def __init__(self, here: asyncio.StreamWriter) -> None:
        self.here = here
        self.there: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()
        self.frozen = False

    def reset(self) -> None:
        self.ended.set()
        for writer in (self.here, self.there):
            if writer is not None:
                _reset(writer)

    def close(self) -> None:
        self.ended.set()
        for writer in (self.here, self.there):
            if writer is not None:
                writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, which discards data in transit like a machine failure."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
