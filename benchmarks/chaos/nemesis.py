"""What breaks things. Each fault is noted when it bites (`cut`) and when it is over (`healed`)."""

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
    """What can be full: a server with an alarm, or a disk."""

    def starve(self) -> None:
        """Leave no room."""

    def relieve(self) -> None:
        """Make room again."""


class Nemesis:
    """Faults, by a seed: the same seed breaks the same things in the same order."""

    def __init__(self, journal: Journal, seed: int) -> None:
        self.random = random.Random(seed)
        self._journal = journal
        self._faults = 0

    def cut(self, what: str) -> int:
        """Note that a fault begins to bite; return its number."""
        self._faults += 1
        self._journal.note("cut", fault=self._faults, what=what)
        return self._faults

    def healed(self, fault: int) -> None:
        """Note that a fault is over."""
        self._journal.note("healed", fault=fault)

    def thresholds(self, count: int, total: int) -> list[int]:
        """Return `count` random places in a run of `total` messages, in order, none at its ends."""
        return sorted(self.random.randint(total // 20, total * 9 // 10) for _ in range(count))

    async def pause(self, longest: float) -> None:
        """Wait a random time, so that faults do not keep step with what they break."""
        await asyncio.sleep(self.random.uniform(0, longest))

    async def kill_server(self, server: Server, down: float) -> None:
        """SIGKILL, up to `down` seconds of silence, and a start; return when it answers again."""
        await asyncio.to_thread(server.kill)
        fault = self.cut("server SIGKILL")
        await self.pause(down)
        await asyncio.to_thread(server.up)
        self.healed(fault)

    async def keep_down(self, server: Server, seconds: float) -> None:
        """SIGKILL, and a start only after `seconds`."""
        await asyncio.to_thread(server.kill)
        fault = self.cut(f"server down for {seconds:g} s")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.up)
        self.healed(fault)

    async def stop_server(self, server: Server, seconds: float) -> None:
        """SIGSTOP for `seconds`: connections stay open and nothing answers."""
        await asyncio.to_thread(server.pause)
        fault = self.cut(f"server SIGSTOP {seconds:g} s")
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(server.resume)
        self.healed(fault)

    def kill(self, process: Process) -> None:
        """SIGKILL a consumer, and note from when on it does nothing any more."""
        process.kill()
        self._journal.note("died", who=process.name)

    @asynccontextmanager
    async def starved(self, place: Room) -> AsyncIterator[None]:
        """Keep a server, or a disk, without room for the time of the block."""
        await asyncio.to_thread(place.starve)
        fault = self.cut(NO_ROOM)
        try:
            yield
        finally:
            await asyncio.to_thread(place.relieve)
        self.healed(fault)

    async def break_link(self, proxy: Proxy, how: str, seconds: float) -> None:
        """Do to the links what one of `LINKS` says, for `seconds` where it takes time."""
        if how == "reset mid-reply":
            proxy.down.reset_after = self.random.randint(1, 2000)
            while proxy.down.reset_after is not None:  # noqa: ASYNC110 - it is hit by data
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
"""The faults of a link; a half-open one, whose peer has forgotten it, stays so until noticed."""
