"""Connections: a pool for commands, and one of its own for each reader that blocks.

redis-py repeats a command that timed out, up to ten times by default, and so turns one XADD into
two; nothing here is ever repeated. A command that was begun is never cancelled half-way either:
its unread reply would go to the next caller (CVE-2023-28858, CVE-2023-28859).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError, RedisError, ResponseError

from anymq.driver import URL

from .client.codec import pack
from .client.transport import Pipe
from .options import RedisOptions, address, encryption
from .scripts import Call, Script

# The longest a read blocks on the server, in seconds.
LONGEST_BLOCK = 2.0
_HEALTH_CHECK = 15
_READ_SIZE = 128 * 1024
_CLOSE_TIMEOUT = 1.0


class Address:
    """How connections to one server are made; the password is in redis-py's hands alone."""

    def __init__(self, url: URL, options: RedisOptions) -> None:
        self._connecting: set[asyncio.Future[Pipe]] = set()
        self.timeout = options.timeout
        self.most = options.connections
        """How many connections commands may have."""
        self._class = SSLConnection if url.scheme == "rediss" else Connection
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

    def copy(self) -> Address:
        """Return the same, of which nothing is under way."""
        other = copy.copy(self)
        other._connecting = set()
        return other

    def pool(self) -> BlockingConnectionPool:
        """Return a pool whose users wait for a connection rather than fail (redis-py #2517)."""
        return BlockingConnectionPool(
            max_connections=self.most,
            timeout=self.timeout,
            connection_class=self._class,
            socket_timeout=self.timeout,
            **self._settings,
        )

    async def pipe(self, **watches: Any) -> Pipe:
        """Connect, in time."""
        connecting = asyncio.ensure_future(Pipe.open(self._class(**self._settings), **watches))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            # Before Python 3.12 a cancellation can get lost in redis-py's calls.
            await asyncio.wait((connecting,), timeout=self.timeout)
            if connecting.done():
                return connecting.result()
            raise TimeoutError("no answer from Redis in time")
        except BaseException:
            connecting.cancel()
            connecting.add_done_callback(_discard)  # Also of one that has succeeded just now.
            raise

    async def settled(self) -> None:
        """Wait until what was given up on the way has come to its end; bounded."""
        if self._connecting:
            await asyncio.wait(set(self._connecting), timeout=_CLOSE_TIMEOUT)
            await asyncio.sleep(0)


def _discard(connecting: asyncio.Future[Pipe]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()


class Commands:
    """Commands over a pool: bounded, never repeated, never abandoned half-way.

    Those who find all connections in use wait. redis-py's own client, `native`, has a pool of its
    own, which opens nothing until it is used.
    """

    def __init__(self, address: Address) -> None:
        self._native_pool = address.pool()
        self.native: Redis = Redis(connection_pool=self._native_pool)
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._pipes: set[Pipe] = set()
        self._idle: list[Pipe] = []
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def apart(self) -> Commands:
        """Return others to the same server, for another thread's event loop."""
        return Commands(self._address.copy())

    async def run(self, *commands: bytes) -> list[Any]:
        """Send packed `commands` in one go; return their replies, server errors in their place.

        Raises when the connection fails: any of the commands may have been carried out then.
        A caller that is cancelled leaves them running.
        """
        data = commands[0] if len(commands) == 1 else b"".join(commands)
        return await self.exchange(data, len(commands))

    async def exchange(self, commands: bytes, count: int) -> list[Any]:
        """As `run`, of `count` commands in one piece."""
        now = self._loop.time()
        deadline = now + self._address.timeout
        idle = self._idle
        if idle and idle[-1].used + _HEALTH_CHECK > now:
            pipe = idle.pop()
        else:
            async with asyncio.timeout_at(deadline):
                pipe = await self._take(deadline)
        return await pipe.ask(commands, count, deadline)

    async def call(self, *args: bytes) -> Any:
        """Send one command and return its reply; raises the server's error."""
        (reply,) = await self.exchange(pack(*args), 1)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def evals(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return as `run` does."""
        replies = await self.run(*[call.packed() for call in calls])
        # The server was restarted, or is another one.
        refused = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if refused:
            again = await self.run(*[calls[at].packed(with_text=True) for at in refused])
            for at, reply in zip(refused, again, strict=True):
                replies[at] = reply
        return replies

    async def eval(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Run one script and return its reply; raises the server's error."""
        (reply,) = await self.evals([script.call(keys, args)])
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Close every connection, also those in use. Harmless when called twice."""
        self._closed = True
        try:
            await asyncio.gather(*(pipe.aclose(_CLOSE_TIMEOUT) for pipe in list(self._pipes)))
            await self._address.settled()
        finally:
            for pipe in list(self._pipes):
                pipe.abort()
            self._wake()
            with contextlib.suppress(RedisError, OSError):
                await self._native_pool.aclose()

    async def _take(self, deadline: float) -> Pipe:
        """Take one that nobody uses, or open one; one that was idle for long must answer first."""
        while True:
            if self._closed:
                raise ConnectionError("the connections were closed")
            if self._idle:
                pipe = self._idle.pop()
                if pipe.used + _HEALTH_CHECK > self._loop.time():
                    return pipe
                with contextlib.suppress(RedisError):
                    await pipe.ask(pack(b"PING"), 1, deadline)
            elif len(self._pipes) + self._opening < self._address.most:
                return await self._open()
            else:
                await self._wait()

    async def _open(self) -> Pipe:
        self._opening += 1
        try:
            pipe = await self._address.pipe(on_idle=self._freed, on_lost=self._lost)
        except BaseException:
            self._opening -= 1
            self._wake()
            raise
        self._opening -= 1
        self._pipes.add(pipe)
        if self._closed:
            pipe.abort()
        return pipe

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def _freed(self, pipe: Pipe) -> None:
        self._idle.append(pipe)
        self._wake()

    def _lost(self, pipe: Pipe) -> None:
        self._pipes.discard(pipe)
        if pipe in self._idle:
            self._idle.remove(pipe)
        self._wake()

    def _wake(self) -> None:
        """Let the next one look again; all of them once it is closed."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not self._closed:
                    return


class ReadConnection:
    """A connection for reads that block. A failure breaks it, the next read mends it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pipe: Pipe | None = None
        self._closed = False

    async def read(self, command: bytes) -> Any:
        """Send one packed command and return its reply; raises the server's error.

        A read that fails, or is cancelled, may leave behind what the server had handed out.
        """
        pipe = self._pipe
        if pipe is None or not pipe.is_open:
            pipe = self._pipe = await self._address.pipe()
            if self._closed:
                pipe.abort()
        patience = LONGEST_BLOCK + self._address.timeout
        deadline = asyncio.get_running_loop().time() + patience
        try:
            (reply,) = await pipe.ask(command, 1, deadline)
        except BaseException:
            pipe.abort()
            raise
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Drop the connection."""
        self._closed = True
        if self._pipe is not None:
            await self._pipe.aclose(_CLOSE_TIMEOUT)
