"""`RedisStore`: the idempotency store on Redis, and the batching of its scripts."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from redis.exceptions import ConnectionError, ResponseError

from anymq.driver import URL, Claim, ClaimState, Store, fault, split_options, supervise

from .client.codec import pack, words
from .client.compat import PUBLIC_PARTS
from .connection import Commands, Connector
from .options import RedisOptions
from .scripts import ABANDON, BEGIN, COMPLETE, RENEW, SET, Call, Script
from .topology import check_server

_MAX_SCAN_CALLS = 100
"""The most calls, of a thousand keys each, that look for an older key."""
_MAX_BATCH = 500
"""The most scripts in one exchange, because the next one waits for all of their replies."""
_NEW, _DONE = Claim(ClaimState.NEW), Claim(ClaimState.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions(RedisOptions):
    """The options of the broker, and `prefix`, the beginning of the store's keys."""

    prefix: str = "anymq:seen:"


class RedisStore(Store):
    """Claims and completions shared by all processes, each in one key that expires by itself.

    Every method is one script or transaction, by the server's clock. Messages that are handled
    concurrently share round trips. Keys are as durable as the server's append-only file. The
    server must not evict keys.
    """

    tls_schemes = frozenset({"rediss"})
    client_parts = PUBLIC_PARTS

    def __init__(self, commands: Commands, prefix: str) -> None:
        self._commands = commands
        self._scripts = ScriptBatcher(commands)
        self._prefix = prefix

    @classmethod
    async def open(cls, url: URL) -> Self:
        common, options = split_options(url, StoreOptions)
        commands = Commands(Connector(url, options))
        try:
            async with asyncio.timeout(common.connect_timeout):
                await check_server(commands, where=str(url))
        except BaseException:
            await commands.aclose()
            raise
        return cls(commands, options.prefix)

    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        # Most keys are new: for these one SET is enough, without a script.
        call = words(self._prefix + key, f"+{owner}", "NX", "GET", "PX", _milliseconds(lease))
        held = await self._scripts.eval(Call(SET, 6, [call]))
        if held is None:
            return _NEW
        return await self._held(held, key, owner, lease)

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        if len(keys) == 1:
            claims = [await self.begin(keys[0], owner, lease)]
        else:
            end = words(f"+{owner}", "NX", "GET", "PX", _milliseconds(lease))
            claims = [
                _NEW if held is None else await self._held(held, key, owner, lease)
                for key, held in zip(keys, await self._set(7, keys, end), strict=True)
            ]
        return {
            key: claim
            for key, claim in zip(keys, claims, strict=True)
            if claim.state is not ClaimState.NEW
        }

    async def _held(self, value: bytes, key: str, owner: str, lease: float) -> Claim:
        if value == b"=":
            return _DONE
        left: int = await self._run(BEGIN, key, owner, lease)
        if left == -2:
            return _NEW
        if left == -1:
            return _DONE
        return Claim(ClaimState.IN_PROGRESS, left / 1000)

    async def may_know(self, prefix: str) -> bool:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._prefix + prefix) + "*"
        cursor = b"0"
        for _ in range(_MAX_SCAN_CALLS):
            cursor, found = await self._commands.call(
                b"SCAN", cursor, b"MATCH", pattern.encode(), b"COUNT", b"1000"
            )
            if found or cursor == b"0":
                return bool(found)
        return True

    async def renew(self, key: str, owner: str, lease: float) -> None:
        await self._run(RENEW, key, owner, lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        return bool(await self._run(COMPLETE, key, owner, keep))

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        await self._set(5, keys, words("=", "PX", _milliseconds(keep)))

    async def abandon(self, key: str, owner: str) -> None:
        await self._run(ABANDON, key, owner)

    async def mark(self, key: str, keep: float) -> int:
        counter = self._counter(key)
        replies = await self._commands.run(
            pack(b"MULTI"),
            pack(b"INCR", counter),
            pack(b"PEXPIRE", counter, _milliseconds(keep).encode()),
            pack(b"EXEC"),
        )
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        count: int = replies[-1][0]
        return count

    async def unmark(self, key: str) -> None:
        await self._commands.call(b"DEL", self._counter(key))

    def _counter(self, key: str) -> bytes:
        return f"{self._prefix}\x01{key}".encode()

    async def aclose(self) -> None:
        await self._scripts.aclose()
        await self._commands.aclose()

    async def _set(self, count: int, keys: Sequence[str], end: bytes) -> list[Any]:
        """Run a `SET` of `count` words for each of `keys`; return the replies."""
        if not keys:
            return []
        begin = b"*%d\r\n$3\r\nSET\r\n" % count
        prefix = self._prefix
        commands = [begin + words(prefix + key) + end for key in keys]
        replies = await self._commands.exchange(b"".join(commands), len(keys))
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    async def _run(self, script: Script, key: str, owner: str, *seconds: float) -> Any:
        args = [owner, *map(_milliseconds, seconds)]
        call = words("1", self._prefix + key, *args)
        return await self._scripts.eval(Call(script, 2 + len(args), [call]))


@lru_cache(maxsize=64)
def _milliseconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds * 1000)))


class ScriptBatcher:
    """Runs scripts. Those requested during an exchange are sent together in the next one.

    So a lone caller does not wait, and a thousand concurrent callers take a few round trips.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Call, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def eval(self, call: Call) -> Any:
        """Run one script and return its reply; raises as `Commands.eval` does.

        If the caller is cancelled, the script runs all the same.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((call, future))
        if self._task is None:
            self._task = supervise(self._run(), name="anymq-redis-scripts")
        return await future

    async def aclose(self) -> None:
        """Fail all calls that have no reply yet."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        left, self._waiting = self._waiting, []
        _answer(left, [_closed()] * len(left))

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            replies: Sequence[Any] = [_closed()] * len(batch)
            try:
                replies = await self._commands.evals([call for call, _ in batch])
            except BaseException as raw:
                replies = [fault(raw, "the client library")] * len(batch)
            finally:
                _answer(batch, replies)
        self._task = None


def _closed() -> ConnectionError:
    return ConnectionError("the store was closed")


def _answer(batch: Sequence[tuple[Call, asyncio.Future[Any]]], replies: Sequence[Any]) -> None:
    for (_, future), reply in zip(batch, replies, strict=True):
        if future.done():
            continue
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
