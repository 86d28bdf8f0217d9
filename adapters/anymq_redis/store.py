"""`RedisStore`: the idempotency store on Redis."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Self

from anymq.options import split_options
from anymq.store import Claim, State, Store
from anymq.url import URL

from .connection import Address, Commands
from .options import RedisOptions
from .scripts import ABANDON, BEGIN, COMPLETE, RENEW, Script
from .topology import check_server


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions(RedisOptions):
    """Those of the broker, and `prefix`, what the keys begin with."""

    prefix: str = "anymq:seen:"


class RedisStore(Store):
    """A three-state memory shared by all processes: one key each, which expires by itself.

    Every method is one script, and time is the server's. What is remembered is as durable as the
    server's append-only file. The server must not evict keys.
    """

    tls_schemes = frozenset({"rediss"})

    def __init__(self, commands: Commands, prefix: str) -> None:
        self._commands = commands
        self._prefix = prefix

    @classmethod
    async def open(cls, url: URL) -> Self:
        common, options = split_options(url, StoreOptions)
        commands = Commands(Address(url, options).pool(), options.timeout)
        try:
            async with asyncio.timeout(common.connect_timeout):
                await check_server(commands, where=str(url))
        except BaseException:
            await commands.aclose()
            raise
        return cls(commands, options.prefix)

    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        left: int = await self._run(BEGIN, key, owner, lease)
        if left == -2:
            return Claim(State.NEW)
        if left == -1:
            return Claim(State.DONE)
        return Claim(State.IN_PROGRESS, left / 1000)

    async def renew(self, key: str, owner: str, lease: float) -> None:
        await self._run(RENEW, key, owner, lease)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        return bool(await self._run(COMPLETE, key, owner, keep))

    async def abandon(self, key: str, owner: str) -> None:
        await self._run(ABANDON, key, owner)

    async def aclose(self) -> None:
        await self._commands.aclose()

    async def _run(self, script: Script, key: str, owner: str, *seconds: float) -> Any:
        args = [owner.encode(), *(b"%d" % max(1, math.ceil(value * 1000)) for value in seconds)]
        return await self._commands.eval(script, [f"{self._prefix}{key}".encode()], args)
