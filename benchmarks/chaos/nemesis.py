"""Fault injection. The journal records begin (`cut`) and end (`healed`) of each fault."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from brokers import Server

from .journal import Journal
from .judge import NO_ROOM
from .process import Process
from .proxy import Proxy


class Room(Protocol):
    """A server with an alarm, or a disk: anything that can run out of space."""

    def starve(self) -> None:
        """Take all free space."""

    def relieve(self) -> None:
        """Free the space again."""


class Nemesis:
    """Injects faults; the same seed gives the same faults in the same order."""

    def __init__(self, journal: Journal, seed: int) -> None:
        self.random = random.Random(seed)
        self._journal = journal
        self._faults = 0

    def cut(self, what: str) -> int:
        """Record the begin of a fault; return its number."""
        self._faults += 1
        self._journal.note("cut", fault=self._faults, what=what)
        return self._faults

    def healed(self, fault: int) -> None:
        """Record the end of a fault."""
        self._journal.note("healed", fault=fault)

    def thresholds(self, count: int, total: int) -> list[int]:
        """Return `count` sorted random message counts between 5 and 90 % of `total`."""
        return sorted(self.random.randint(total // 20, total * 9 // 10) for _ in range(count))

    async def pause(self, longest: float) -> None:
        """Wait up to `longest` seconds, so that faults do not synchronise with the load."""
        await asyncio.sleep(self.random.uniform(0, longest))

    async def kill_server(self, server: Server, down: float) -> None:
        """SIGKILL a server, start it after up to `down` seconds, and wait until it answers."""
        await asyncio.to_thread(server.kill)
        fault = self.cut("server SIGKILL")
        await self.pause(down)
        await asyncio.to_thread(server.up)
        self.healed(fault)

    async def keep_down(self, server: Server, seconds: float) -> None:
        """SIGKILL a server and start it after `seconds`."""
        await asyncio.to_thread(server.kill)
        fault = self.cut(f"server down for {seconds:g} s")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.up)
        self.healed(fault)

    async def stop_server(self, server: Server, seconds: float) -> None:
        """SIGSTOP a server for `seconds`: connections stay open and nothing answers."""
        await asyncio.to_thread(server.pause)
        fault = self.cut(f"server SIGSTOP {seconds:g} s")
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(server.resume)
        self.healed(fault)

    def kill(self, process: Process) -> None:
        """SIGKILL a consumer and record its death."""
        process.kill()
        self._journal.note("died", who=process.name)

    @asynccontextmanager
    async def starved(self, room: Room) -> AsyncIterator[None]:
        """Keep a server or disk without free space within the context."""
        await asyncio.to_thread(room.starve)
        fault = self.cut(NO_ROOM)
        try:
            yield
        finally:
            await asyncio.to_thread(room.relieve)
        self.healed(fault)

    async def break_link(self, proxy: Proxy, how: str, seconds: float) -> None:
        """Apply one of the faults in `LINKS` to all links, for `seconds` if it has a duration."""
        if how == "reset mid-reply":
            proxy.down.reset_after = self.random.randint(1, 2000)
            while proxy.down.reset_after is not None:  # noqa: ASYNC110 - data trigger it
                await asyncio.sleep(0.01)
        fault = self.cut(f"link: {how}")
        match how:
            case "cut":
                proxy.cut()
            case "half-open":
                proxy.freeze()
            case "delay":
                proxy.up.delay = proxy.down.delay = 0.1
                await asyncio.sleep(seconds)
            case "stall up":
                proxy.stall(proxy.up)
                await asyncio.sleep(seconds)
            case "stall down":
                proxy.stall(proxy.down)
                await asyncio.sleep(seconds)
            case "refuse":
                proxy.accepting = False
                proxy.cut()
                await asyncio.sleep(seconds)
            case "vanish":
                proxy.vanish()
                await asyncio.sleep(seconds)
            case _:
                pass
        if how not in ("cut", "half-open", "reset mid-reply"):
            proxy.heal()
        self.healed(fault)


LINKS = (
    "cut",
    "reset mid-reply",
    "delay",
    "stall up",
    "stall down",
    "refuse",
    "vanish",
    "half-open",
)
"""The faults of a link. A half-open link stays so until the client notices."""
