"""Connections: a pool for commands, and one of its own for each reader that blocks.

redis-py repeats a command that timed out, up to ten times by default, and so turns one XADD into
two; nothing here is ever repeated. A command that was begun is never cancelled half-way either:
its unread reply would go to the next caller (CVE-2023-28858, CVE-2023-28859).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from anymq.url import URL

from .options import RedisOptions, address, encryption
from .scripts import Script

# The longest a read blocks on the server, in seconds.
LONGEST_BLOCK = 2.0
_HEALTH_CHECK = 15
_READ_SIZE = 128 * 1024


def pack(*args: bytes) -> bytes:
    """Return one command as it goes over the wire: three times as fast as redis-py's own."""
    return b"*%d\r\n%b" % (
        len(args),
        b"".join([b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]),
    )


class Address:
    """How connections to one server are made; the password is in redis-py's hands alone."""

    def __init__(self, url: URL, options: RedisOptions) -> None:
        self._timeout = options.timeout
        self._class = SSLConnection if url.scheme == "rediss" else Connection
        self._connections = options.connections
        self._settings: dict[str, Any] = {
            **address(url),
            **encryption(url, options),
            # RESP2 replies have one shape on every version of the server and of redis-py.
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": options.timeout,
            "socket_keepalive": True,
            "socket_read_size": _READ_SIZE,
            "health_check_interval": _HEALTH_CHECK,
            "client_name": options.client_name,
        }

    def pool(self) -> BlockingConnectionPool:
        """Return a pool whose users wait for a connection rather than fail (redis-py #2517)."""
        return BlockingConnectionPool(
            max_connections=self._connections,
            timeout=self._timeout,
            connection_class=self._class,
            socket_timeout=self._timeout,
            **self._settings,
        )

    def reader(self) -> Connection:
        """Return a connection for reads that block, which must not time out before they do."""
        return self._class(socket_timeout=LONGEST_BLOCK + self._timeout, **self._settings)


class Commands:
    """Commands over a pool: bounded, never repeated, never abandoned half-way."""

    def __init__(self, pool: BlockingConnectionPool, timeout: float) -> None:
        self.native: Redis = Redis(connection_pool=pool)
        self._pool = pool
        self._timeout = timeout
        self._running: set[asyncio.Task[list[Any]]] = set()

    async def run(self, *commands: bytes) -> list[Any]:
        """Send packed `commands` in one go; return their replies, server errors in their place.

        Raises when the connection fails: any of the commands may have been carried out then.
        A caller that is cancelled leaves them running.
        """
        task = asyncio.create_task(self._exchange(commands))
        self._running.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    async def call(self, *args: bytes) -> Any:
        """Send one command and return its reply; raises the server's error."""
        (reply,) = await self.run(pack(*args))
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def evals(
        self, calls: Sequence[tuple[Script, Sequence[bytes], Sequence[bytes]]]
    ) -> list[Any]:
        """Run scripts, given with their keys and arguments; return as `run` does."""
        replies = await self.run(*(pack(*script.call(keys, args)) for script, keys, args in calls))
        for index, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):  # the server was restarted, or is another one
                script, keys, args = calls[index]
                (replies[index],) = await self.run(pack(*script.source_call(keys, args)))
        return replies

    async def eval(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Run one script and return its reply; raises the server's error."""
        (reply,) = await self.evals([(script, keys, args)])
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Close every connection, also those in use. Harmless when called twice."""
        try:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await self._pool.aclose()

    def _finished(self, task: asyncio.Task[list[Any]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone: then nobody else looks at it

    async def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        async with asyncio.timeout(self._timeout):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_packed_command(commands)
                replies = [await _reply(connection) for _ in commands]
                if any(isinstance(reply, ReadOnlyError) for reply in replies):
                    # A demoted primary: the name may lead to the new one when it is asked again.
                    await connection.disconnect()
                return replies
            finally:
                await self._pool.release(connection)


class Reader:
    """A connection for reads that block. A failure breaks it, the next read mends it."""

    def __init__(self, address: Address) -> None:
        self._connection = address.reader()

    async def read(self, command: bytes) -> Any:
        """Send one packed command and return its reply; raises the server's error.

        A read that fails, or is cancelled, may leave behind what the server had handed out.
        """
        connection = self._connection
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command([command])
            return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def aclose(self) -> None:
        """Drop the connection."""
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect()


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
