"""`FastTransport`: an asyncio protocol on a socket that redis-py has opened.

redis-py resolves the name, connects, encrypts, authenticates and selects the database. Its layers
above the socket take several times as long as a small exchange itself. So this module replaces
redis-py's protocol on the socket, writes each exchange in one piece, and parses replies with
hiredis.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError

from .transport import Transport, Watch, closed, ignore, late

_INCOMPLETE = object()


class FastTransport(asyncio.Protocol, Transport):
    """A transport that owns the socket of a redis-py connection."""

    def __init__(
        self, connection: AbstractConnection, on_idle: Watch = ignore, on_lost: Watch = ignore
    ) -> None:
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self.used = self._loop.time()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_INCOMPLETE,
        )
        self._replies: list[Any] = []
        self._expected = 0
        self._answer: asyncio.Future[list[Any]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._released: asyncio.Future[None] = self._loop.create_future()
        self._writer = _take_over(connection, self)
        self._transport = self._writer.transport

    @classmethod
    async def open(
        cls,
        connection_class: type[AbstractConnection],
        settings: Mapping[str, Any],
        *,
        on_idle: Watch = ignore,
        on_lost: Watch = ignore,
    ) -> Self:
        connection = connection_class(**settings)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            return cls(connection, on_idle, on_lost)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def ask(self, commands: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            answer.set_exception(closed())
            return answer
        self._answer, self._expected = answer, count
        self._timer = self._loop.call_at(deadline, self._expire)
        self._transport.write(commands)
        return answer

    def abort(self, error: Exception | None = None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._transport.abort()
        self._on_lost(self)
        answer = self._end()
        if answer is not None and not answer.done():
            answer.set_exception(error or closed())

    async def aclose(self, timeout: float) -> None:
        self.abort()
        await asyncio.wait((self._released,), timeout=timeout)

    def data_received(self, data: bytes) -> None:
        replies = self._replies
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _INCOMPLETE:
                replies.append(reply)
        except InvalidResponse as error:
            self.abort(error)
            return
        if len(replies) < self._expected:
            return
        if self._answer is None or len(replies) > self._expected:
            self.abort(_unexpected(replies))
        else:
            self._complete(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._released.done():
            self._released.set_result(None)
        self.abort(ConnectionError(f"the connection was lost: {exc}") if exc else None)

    def _complete(self, replies: list[Any]) -> None:
        demoted = False
        for reply in replies:
            if isinstance(reply, ConnectionError):
                self.abort(reply)
                return
            demoted |= isinstance(reply, ReadOnlyError)
        self.used = self._loop.time()
        answer = self._end()
        if demoted:
            # The server is a replica now; a new connection may lead to the new primary.
            self.abort()
        else:
            self._on_idle(self)
        if answer is not None and not answer.done():
            answer.set_result(replies)

    def _end(self) -> asyncio.Future[list[Any]] | None:
        """End the exchange in progress; return its future, if any."""
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        self._replies, self._expected, self._timer = [], 0, None
        return answer

    def _expire(self) -> None:
        self.abort(late())


def _take_over(connection: AbstractConnection, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    reader, writer = connection._reader, connection._writer
    if reader is None or writer is None or reader.at_eof() or writer.is_closing():
        raise closed()
    writer.transport.set_protocol(protocol)
    # When redis-py's connection object is collected it closes the streams that it still refers to.
    connection._reader = connection._writer = None
    return writer


def _unexpected(replies: list[Any]) -> Exception:
    first = replies[0]
    return first if isinstance(first, Exception) else InvalidResponse("a reply without a request")
