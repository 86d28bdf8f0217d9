"""`HealthServer`: a small HTTP server for probes and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import NamedTuple

from ..errors import ConfigurationError, text_of
from ..logs import logger
from .endpoint import Answer, Reporter, answer, refusal

log = logger("anymq.health")

MAX_HEAD = 8192
"""The most bytes of a request line and its headers."""
REQUEST_SECONDS = 5.0
"""Seconds for a client to send its request, and again to take the answer."""
MAX_CONNECTIONS = 64
"""The most connections at a time; others are closed at once."""


class Address(NamedTuple):
    """A host and a port to listen on. An empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address in `HOST:PORT`, `[IPv6]:PORT` or `:PORT`; port 0 is any free one.

        Raises `ConfigurationError` for any other text.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536
        if (
            not colon
            or not is_port
            or bracketed is not (":" in host)
            or any(c <= " " for c in host)
        ):
            raise ConfigurationError(
                f"{text!r} is not an address for health: write HOST:PORT, as 127.0.0.1:8080, "
                "[::1]:8080, or :8080 for every interface"
            )
        return cls(host, int(port))


class HealthServer:
    """Serves `/livez`, `/readyz` and `/metrics` of a reporter, until it is closed."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[object]] = set()

    async def start(self, address: Address) -> Address:
        """Listen on `address`; return it with the port that was chosen.

        Raises `ConfigurationError` if that is not possible.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, address.host or None, address.port, limit=MAX_HEAD
            )
        except (OSError, UnicodeError, ValueError) as error:
            raise ConfigurationError(
                f"cannot serve health at {address}: {_cause(error)}"
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        found = Address(address.host, port)
        log.info("health at http://%s", found)
        return found

    async def aclose(self) -> None:
        """Stop listening, and end the requests that are being answered."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await self._respond(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # The server closes, and does not wait for this task.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, found = "", None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            method, path = _request(head)
        except TimeoutError:
            found = refusal(408, f"no request within {REQUEST_SECONDS:g} s")
        except (ValueError, asyncio.LimitOverrunError):
            found = refusal(400, "not a request that this server understands")
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return
            found = refusal(400, "the request ends early")
        else:
            found = await self._answer(method, path)
        writer.write(_encoded(found, with_body=method != "HEAD"))
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.drain()

    async def _answer(self, method: str, path: str) -> Answer:
        try:
            return await answer(self._reporter, method, path)
        except Exception as error:
            log.exception("a report for %s failed", path)
            return refusal(500, text_of(error))


@contextlib.asynccontextmanager
async def serving(reporter: Reporter, address: str) -> AsyncIterator[None]:
    """Serve the health of `reporter` at `address` within this context."""
    server = HealthServer(reporter)
    await server.start(Address.parse(address))
    try:
        yield
    finally:
        await server.aclose()


def _request(head: bytes) -> tuple[str, str]:
    """Return the method and the path of a request; raises `ValueError` if it is malformed."""
    line, *fields = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = line.split(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not target.startswith("/") or not method:
        raise ValueError(line)
    for field in fields:
        name, colon, _ = field.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError(field)
    return method, target.partition("?")[0]


def _encoded(found: Answer, *, with_body: bool) -> bytes:
    reason = HTTPStatus(found.status).phrase
    headers = found.headers | {"connection": "close"}
    lines = [f"HTTP/1.1 {found.status} {reason}", *(f"{n}: {v}" for n, v in headers.items())]
    head = "\r\n".join((*lines, "", "")).encode("ascii")
    return head + found.body if with_body else head


def _cause(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host is unknown ({error.strerror})"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return "another process uses this port"
    if number == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not use that port"
    return text_of(error)
