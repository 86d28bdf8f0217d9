"""`Pipe`: a connection that redis-py has opened, and all that goes over it from then on.

redis-py connects: names, TLS, credentials, the database. Behind that its layers cost several times
what a small exchange itself does: so its protocol on the socket is exchanged for this one, which
writes an exchange as one piece, and has hiredis cut the replies.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError

_NOTHING = object()

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    AbstractConnection: ("_reader", "_writer", "connect", "disconnect"),
    BaseParser: ("parse_error",),
}
"""The parts of redis-py that `Driver.client_parts` asks for."""

Watch = Callable[["Pipe"], None]


class Pipe(asyncio.Protocol):
    """One exchange at a time, bounded. One that fails, or is given up, closes it.

    A caller that is cancelled leaves its exchange running: the unread replies never go to
    another. `on_idle` is called when the next exchange may begin, `on_lost` when none may ever.
    """

    def __init__(self, connection: AbstractConnection, on_idle: Watch, on_lost: Watch) -> None:
        self.is_open = True
        self.used = 0.0
        """When it last brought an answer, by the loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_NOTHING,
        )
        self._replies: list[Any] = []
        self._left = 0
        self._answer: asyncio.Future[list[Any]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._writer = _take_over(connection, self)
        self._transport = self._writer.transport

    @classmethod
    async def open(
        cls,
        connection: AbstractConnection,
        *,
        on_idle: Watch = lambda _: None,
        on_lost: Watch = lambda _: None,
    ) -> Pipe:
        """Connect."""
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            pipe = cls(connection, on_idle, on_lost)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        pipe.used = pipe._loop.time()
        return pipe

    def ask(self, commands: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        """Send packed `commands` in one go; return their `count` replies, the server's errors in
        their place. Raises `TimeoutError` at `deadline`, by the loop's clock.
        """
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            answer.set_exception(_closed())
            return answer
        self._answer, self._left = answer, count
        self._timer = self._loop.call_at(deadline, self._expire)
        self._transport.write(commands)
        return answer

    def abort(self, error: Exception | None = None) -> None:
        """Close it at once; what is under way fails with `error`."""
        if not self.is_open:
            return
        self.is_open = False
        self._transport.abort()
        self._on_lost(self)
        answer = self._end()
        if answer is not None and not answer.done():
            answer.set_exception(error or _closed())

    async def aclose(self, timeout: float) -> None:
        """Close it, and wait for as long until the socket is released."""
        self.abort()
        await asyncio.wait((self._gone,), timeout=timeout)

    def data_received(self, data: bytes) -> None:
        replies = self._replies
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                replies.append(reply)
        except InvalidResponse as error:
            self.abort(error)
            return
        if len(replies) < self._left:
            return
        if self._answer is None or len(replies) > self._left:
            self.abort(_unexpected(replies))
        else:
            self._complete(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
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
            # The name may lead to the new primary when it is asked again.
            self.abort()
        else:
            self._on_idle(self)
        if answer is not None and not answer.done():
            answer.set_result(replies)

    def _end(self) -> asyncio.Future[list[Any]] | None:
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        self._replies, self._left, self._timer = [], 0, None
        return answer

    def _expire(self) -> None:
        self.abort(TimeoutError("no answer from Redis in time"))


def _take_over(connection: AbstractConnection, protocol: asyncio.Protocol) -> asyncio.StreamWriter:
    reader, writer = connection._reader, connection._writer
    if reader is None or writer is None or reader.at_eof() or writer.is_closing():
        raise _closed()
    writer.transport.set_protocol(protocol)
    # It would close what it holds when it is collected.
    connection._reader = connection._writer = None
    return writer


def _closed() -> ConnectionError:
    return ConnectionError("the connection was closed")


def _unexpected(replies: list[Any]) -> Exception:
    first = replies[0]
    return first if isinstance(first, Exception) else InvalidResponse("replies nobody asked for")
