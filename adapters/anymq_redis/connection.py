"""Connections: a pool for commands, and one for each reader that blocks.

redis-py repeats a command that timed out, up to ten times by default, which turns one XADD into
two. Nothing here is ever repeated. Nor is a command cancelled once it has begun, because its
unread reply would go to the next caller (CVE-2023-28858, CVE-2023-28859).
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
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError, NoScriptError, RedisError, ResponseError

from anymq.driver import URL

from .client.codec import pack
from .client.compat import transport_for
from .client.transport import Transport, late
from .options import RedisOptions, address, encryption
from .scripts import Call, Script

MAX_BLOCK_SECONDS = 2.0
"""The longest that a read blocks on the server."""

_HEALTH_CHECK_SECONDS = 15
_READ_BUFFER_BYTES = 128 * 1024
_CLOSE_SECONDS = 1.0

_MAX_REPLY_BYTES = 8 * 1024 * 1024
_FIRST_ENTRY_BYTES = 64 * 1024.0
_MAX_ENTRIES = 2000
_SAMPLE_ENTRIES = 32


class Connector:
    """Opens connections to one server, each with the user and password of now."""

    def __init__(self, url: URL, options: RedisOptions) -> None:
        self._connecting: set[asyncio.Future[Transport]] = set()
        self.timeout = options.timeout
        self.max_connections = options.connections
        """The most connections that commands may have."""
        self._transport_class = transport_for(options.client)
        self._connection_class = SSLConnection if url.scheme == "rediss" else Connection
        self._settings: dict[str, Any] = {
            **address(url),
            **encryption(url, options),
            "credential_provider": _Login(url) if url.username or url.password else None,
            # RESP2 replies have one shape on every version of the server and of redis-py.
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": options.timeout,
            "socket_keepalive": True,
            "socket_read_size": _READ_BUFFER_BYTES,
            "health_check_interval": _HEALTH_CHECK_SECONDS,
            "client_name": options.client_name,
        }

    def copy(self) -> Connector:
        """Return a connector to the same server, with no connect in progress."""
        other = copy.copy(self)
        other._connecting = set()
        return other

    def pool(self) -> BlockingConnectionPool:
        """Return a pool whose users wait for a connection rather than fail (redis-py #2517)."""
        return BlockingConnectionPool(
            max_connections=self.max_connections,
            timeout=self.timeout,
            connection_class=self._connection_class,
            socket_timeout=self.timeout,
            **self._settings,
        )

    async def connect(self, **watches: Any) -> Transport:
        """Open a connection within the timeout."""
        connecting = asyncio.ensure_future(
            self._transport_class.open(self._connection_class, self._settings, **watches)
        )
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            # Before Python 3.12 a cancellation can get lost in redis-py's calls.
            await asyncio.wait((connecting,), timeout=self.timeout)
            if connecting.done():
                return connecting.result()
            raise late()
        except BaseException:
            connecting.cancel()
            connecting.add_done_callback(_discard)  # Also if it has succeeded meanwhile.
            raise

    async def abandoned_ended(self) -> None:
        """Wait at most 1 s until connects that were given up have ended."""
        if self._connecting:
            await asyncio.wait(set(self._connecting), timeout=_CLOSE_SECONDS)
            await asyncio.sleep(0)


class _Login(CredentialProvider):
    """The credentials that redis-py asks for whenever it opens a connection."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        url = self._url.current()
        password = url.password or ""
        return (url.username, password) if url.username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def _discard(connecting: asyncio.Future[Transport]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()


class Commands:
    """A pool of connections for commands: bounded in time, never repeated, never cut short.

    Callers wait while all connections are in use. `native` is redis-py's own client. Its pool is
    separate, and opens no connection until it is used.
    """

    def __init__(self, connector: Connector) -> None:
        self._native_pool = connector.pool()
        self.native: Redis = Redis(connection_pool=self._native_pool)
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._transports: set[Transport] = set()
        self._idle: list[Transport] = []
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def for_other_loop(self) -> Commands:
        """Return a pool to the same server, for the event loop of another thread."""
        return Commands(self._connector.copy())

    async def run(self, *commands: bytes) -> list[Any]:
        """Send packed `commands` in one piece; return their replies, server errors in their place.

        Raises when the connection fails; the server may have carried out any of the commands then.
        A caller that is cancelled leaves them running.
        """
        data = commands[0] if len(commands) == 1 else b"".join(commands)
        return await self.exchange(data, len(commands))

    async def exchange(self, commands: bytes, count: int) -> list[Any]:
        """Do as `run` with `count` commands that are in one piece already."""
        now = self._loop.time()
        deadline = now + self._connector.timeout
        idle = self._idle
        if idle and idle[-1].used + _HEALTH_CHECK_SECONDS > now:
            transport = idle.pop()
        else:
            async with asyncio.timeout_at(deadline):
                transport = await self._acquire(deadline)
        return await transport.ask(commands, count, deadline)

    async def call(self, *args: bytes) -> Any:
        """Send one command and return its reply; raises the server's error."""
        (reply,) = await self.exchange(pack(*args), 1)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def evals(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return as `run` does."""
        replies = await self.run(*[call.packed() for call in calls])
        # A server that was restarted, or replaced, does not know the scripts.
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
        """Close every connection, also those in use. A second call does nothing."""
        self._closed = True
        try:
            closing = (transport.aclose(_CLOSE_SECONDS) for transport in list(self._transports))
            await asyncio.gather(*closing)
            await self._connector.abandoned_ended()
        finally:
            for transport in list(self._transports):
                transport.abort()
            self._wake()
            with contextlib.suppress(RedisError, OSError):
                await self._native_pool.aclose()

    async def _acquire(self, deadline: float) -> Transport:
        """Return an idle connection or a new one; one that was idle for 15 s must answer first."""
        while True:
            if self._closed:
                raise ConnectionError("the connections were closed")
            if self._idle:
                transport = self._idle.pop()
                if transport.used + _HEALTH_CHECK_SECONDS > self._loop.time():
                    return transport
                with contextlib.suppress(RedisError):
                    await transport.ask(pack(b"PING"), 1, deadline)
            elif len(self._transports) + self._opening < self._connector.max_connections:
                return await self._open()
            else:
                await self._wait()

    async def _open(self) -> Transport:
        self._opening += 1
        try:
            transport = await self._connector.connect(on_idle=self._on_idle, on_lost=self._on_lost)
        except BaseException:
            self._opening -= 1
            self._wake()
            raise
        self._opening -= 1
        self._transports.add(transport)
        if self._closed:
            transport.abort()
        return transport

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def _on_idle(self, transport: Transport) -> None:
        self._idle.append(transport)
        self._wake()

    def _on_lost(self, transport: Transport) -> None:
        self._transports.discard(transport)
        if transport in self._idle:
            self._idle.remove(transport)
        self._wake()

    def _wake(self) -> None:
        """Wake the caller that has waited longest; all callers once the pool is closed."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not self._closed:
                    return


class ReadConnection:
    """A connection for blocking reads. A failed read closes it; the next read opens another."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._transport: Transport | None = None
        self._closed = False

    async def read(self, command: bytes) -> Any:
        """Send one packed command and return its reply; raises the server's error.

        When a read fails or is cancelled, the server may have delivered entries to it that are
        lost with its reply.
        """
        transport = self._transport
        if transport is None or not transport.is_open:
            transport = self._transport = await self._connector.connect()
            if self._closed:
                transport.abort()
        patience = MAX_BLOCK_SECONDS + self._connector.timeout
        deadline = asyncio.get_running_loop().time() + patience
        try:
            (reply,) = await transport.ask(command, 1, deadline)
        except BaseException:
            transport.abort()
            raise
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._transport is not None:
            await self._transport.aclose(_CLOSE_SECONDS)


class ReadSize:
    """The COUNT of reads, adapted to the entries that were read before.

    The server counts by stream. So a limit is divided by the number of streams in the last reply,
    and a reply is kept below 8 MiB by the size of the entries so far.
    """

    def __init__(self) -> None:
        self._entry_bytes = _FIRST_ENTRY_BYTES
        self._streams = 1

    def arguments(self, limit: int, wait: float) -> list[bytes]:
        """Return COUNT and BLOCK for a read of up to `limit` entries."""
        args = [b"COUNT", self.count(-(-limit // self._streams))]
        block = min(wait, MAX_BLOCK_SECONDS)
        if block > 0:  # BLOCK 0 would block without end.
            args += (b"BLOCK", b"%d" % max(1, round(block * 1000)))
        return args

    def count(self, limit: int) -> bytes:
        """Return how many entries to read from one stream, up to `limit`."""
        affordable = int(_MAX_REPLY_BYTES / self._entry_bytes) // self._streams
        return b"%d" % max(1, min(limit, _MAX_ENTRIES, affordable))

    def learn(self, reply: Sequence[Any] | None) -> None:
        """Adapt to the reply of a read: a larger size counts at once, a smaller one by half."""
        self._streams = len(reply or ()) or 1
        for _, entries in reply or ():
            sample = entries[:: 1 + len(entries) // _SAMPLE_ENTRIES]
            size = sum(_length(entry[1]) for entry in sample) / len(sample)
            self._entry_bytes = max(size, (self._entry_bytes + size) / 2)


def _length(flat: Sequence[bytes]) -> int:
    return sum(map(len, flat)) + 8 * len(flat)
