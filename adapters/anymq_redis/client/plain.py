"""`PlainTransport`: exchanges over the public interface of redis-py.

It is slower than `FastTransport`, and works with releases of redis-py whose private parts differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError

from anymq.driver import supervise

from .codec import unpack
from .transport import Transport, Watch, closed, ignore, late


class PlainTransport(Transport):
    """A transport that is a redis-py client with a pool of one connection.

    redis-py reconnects by itself when it finds the idle connection dead.
    """

    def __init__(self, client: Redis, on_idle: Watch, on_lost: Watch) -> None:
        self.is_open = True
        self._loop = asyncio.get_running_loop()
        self.used = self._loop.time()
        self._client = client
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._answer: asyncio.Future[list[Any]] | None = None
        self._exchange: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        connection_class: type[AbstractConnection],
        settings: Mapping[str, Any],
        *,
        on_idle: Watch = ignore,
        on_lost: Watch = ignore,
    ) -> Self:
        # `ask` has deadlines of its own: a socket timeout would end a read that blocks for longer.
        own = {**settings, "socket_timeout": None}
        pool = ConnectionPool(connection_class=connection_class, max_connections=1, **own)
        client = Redis.from_pool(pool)
        try:
            await pool.release(await pool.get_connection())  # type: ignore[no-untyped-call]
        except BaseException:
            await client.aclose()
            raise
        return cls(client, on_idle, on_lost)

    def ask(self, commands: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.is_open:
            answer.set_exception(closed())
            return answer
        self._answer = answer
        exchange = self._run(unpack(commands), deadline)
        self._exchange = supervise(exchange, name="anymq-redis-exchange", ended=self.abort)
        return answer

    def abort(self, error: Exception | None = None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._ending.add(supervise(self._client.aclose(), name="anymq-redis-close"))
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
            self._ending.add(exchange)
        self._on_lost(self)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error or closed())

    async def aclose(self, timeout: float) -> None:
        self.abort()
        _, unfinished = await asyncio.wait(self._ending, timeout=timeout)
        for task in unfinished:
            task.cancel()

    async def _run(self, commands: Sequence[Sequence[bytes]], deadline: float) -> None:
        error: Exception
        try:
            async with asyncio.timeout_at(deadline):
                replies = await self._replies(commands)
        except TimeoutError:
            error = late()
        except Exception as raw:
            error = raw
        else:
            self._complete(replies)
            return
        self._exchange = None  # This task, which ends by itself.
        self.abort(error)

    async def _replies(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        # redis-py converts replies by the command's name as text; a name in bytes leaves them raw.
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    def _complete(self, replies: list[Any]) -> None:
        self.used = self._loop.time()
        answer, self._answer, self._exchange = self._answer, None, None
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            # The server is a replica now; a new connection may lead to the new primary.
            self.abort()
        else:
            self._on_idle(self)
        if answer is not None and not answer.done():
            answer.set_result(replies)
