"""One run of a scenario: its processes, their events so far, and its verdict."""

from __future__ import annotations

import asyncio
import math
import signal
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from anymq.testing.harness import random_name

from .consumer import ConsumerSettings
from .inbox import committed
from .journal import Journal, Tail, now, read
from .judge import Verdict, judge
from .nemesis import Nemesis
from .process import Process, Settings, spawn
from .producer import ProducerSettings
from .target import Target

STANDSTILL = 90.0
"""Seconds without progress after which a run is aborted and missing messages are lost."""
TICK = 0.05
"""Seconds between two reads of the journals."""
END_SLACK = 5.0
"""Seconds that a process may take to end beyond its own timeouts."""


class Stuck(Exception):
    """An expected event did not occur in time."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a run, by default the short form. Times are in seconds."""

    messages: int = 3000
    kills: int = 3
    seed: int = 1
    rate: float = 1000.0
    outage: float = 20.0
    pauses: tuple[float, ...] = (5.0,)
    stall: float = 5.0
    backlog: int = 20_000
    down: float = 1.0
    """Longest time that a killed server stays down."""
    patience: float = 1.0
    """Factor on all recovery limits, for a machine under other load."""


class Run:
    """The processes of one scenario, and running counts of their events."""

    def __init__(self, target: Target, folder: Path, size: Size) -> None:
        self.target = target
        self.folder = folder
        self.size = size
        self.url = target.url
        self.topic = random_name("chaos")
        self.journal = Journal(folder / "nemesis.jsonl")
        self.nemesis = Nemesis(self.journal, size.seed)
        self.ids: dict[str, set[str]] = defaultdict(set)
        """Message ids by kind of event, so far."""
        self.heard: dict[str, set[str]] = defaultdict(set)
        """Message ids handled by each broadcast subscriber, so far."""
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        """Number of events by process and kind, so far."""
        self.problems: list[str] = []
        self.processes: list[Process] = []
        self.partitions: int | None = None
        self._tail = Tail(folder)
        self._names: dict[str, int] = defaultdict(int)
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            await process.wait(END_SLACK)
        await self.stack.aclose()
        self.journal.close()

    @property
    def inbox(self) -> str:
        """File of the idempotency store shared by consumers."""
        return str(self.folder / "inbox.db")

    async def produce(self, messages: int, **settings: Any) -> Process:
        """Start a producer, which ends when `messages` messages are confirmed."""
        settings = {"rate": self.size.rate, "seed": self.size.seed, **settings}
        made = ProducerSettings(messages=messages, **self._common("producer"), **settings)
        return await self._start("producer", made)

    async def consume(self, **settings: Any) -> Process:
        """Start a consumer and wait until it is subscribed."""
        role = settings.pop("role", "consumer")
        made = ConsumerSettings(**{**self._common(role), **settings})
        return await self.ready(await self._start("consumer", made))

    async def again(self, process: Process) -> Process:
        """Start a replacement of a killed consumer and wait until it is subscribed."""
        return await self.ready(await self.begin_again(process))

    async def begin_again(self, process: Process) -> Process:
        """Start a replacement of a killed consumer without waiting for it."""
        role = process.name.rpartition("-")[0]
        return await self._start("consumer", replace(process.settings, name=self._name(role)))

    async def ready(self, process: Process) -> Process:
        """Wait until the process has recorded `ready` or ended."""
        await self.until(
            lambda: bool(self.counts[process.name, "ready"]) or not process.running,
            what=f"{process.name} is ready",
        )
        return process

    def _common(self, role: str) -> dict[str, Any]:
        return {
            "name": self._name(role),
            "folder": str(self.folder),
            "url": self.url,
            "topic": self.topic,
            "partitions": self.partitions,
        }

    def _name(self, role: str) -> str:
        self._names[role] += 1
        return f"{role}-{self._names[role]}"

    async def _start(self, module: str, settings: Settings) -> Process:
        process = await spawn(module, settings)
        self.processes.append(process)
        return process

    def look(self) -> int:
        """Read the new events; return how many of them count as progress."""
        count = 0
        for event in self._tail.new():
            self.counts[event["by"], event["event"]] += event["event"] != "rss"
            count += event["event"] not in ("rss", "attempt", "failed", "call")
            if (id := event.get("id")) is not None:
                self.ids[event["event"]].add(id)
                if event["event"] == "heard":
                    self.heard[event["by"]].add(id)
        for process in self.processes:
            if process.failed:
                raise Stuck(f"{process} crashed; see {self.folder / process.name}.log")
        return count

    @property
    def confirmed(self) -> int:
        """Number of messages confirmed so far."""
        return len(self.ids["confirmed"])

    async def until(
        self, condition: Callable[[], bool], *, what: str, within: float = math.inf
    ) -> None:
        """Wait for `condition`; raise `Stuck` after `within` s or without any progress."""
        started = moved = now()
        while True:
            if self.look():
                moved = now()
            if condition():
                return
            if now() - moved > STANDSTILL:
                raise Stuck(f"no progress for {STANDSTILL:g} s; expected: {what}")
            if now() - started > within:
                raise Stuck(f"not within {within:g} s; expected: {what}")
            await asyncio.sleep(TICK)

    async def reached(self, event: str, count: int) -> None:
        """Wait until `count` message ids have an `event`."""
        await self.until(lambda: len(self.ids[event]) >= count, what=f"{count} x {event}")

    async def produced(self, *producers: Process) -> None:
        """Wait until the producers have ended."""
        await self.until(lambda: not any(p.running for p in producers), what="producers end")

    async def drained(self) -> None:
        """Wait until all confirmed messages have been handled."""
        last = "noted" if any(item.store for item in self._consumers()) else "done"

        readers = [item.name for item in self._consumers() if item.group is None]

        def done() -> bool:
            confirmed = self.ids["confirmed"]
            if not confirmed <= self.ids[last] | self.ids["letter"]:
                return False
            return all(confirmed <= self.heard[name] for name in readers)

        await self.until(done, what="everything confirmed is handled")

    def _consumers(self) -> list[ConsumerSettings]:
        settings = (process.settings for process in self.processes)
        return [item for item in settings if isinstance(item, ConsumerSettings)]

    async def stopped(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal all running processes; record those that do not end in time."""
        running = [process for process in self.processes if process.running]
        for process in running:
            await self.ready(process)
            process.stop(number)
        for process in running:
            grace = getattr(process.settings, "drain_timeout", 5.0)
            if not await process.wait(grace + 5.0 + END_SLACK):
                self.problems.append(f"{process.name} did not end after {number.name}")
        self.look()

    async def finish(self) -> None:
        """Wait until all messages are handled, then stop all processes."""
        await self.drained()
        await self.stopped()

    def verdict(self) -> Verdict:
        """Judge the journals as they are now."""
        rows = committed(self.folder / "inbox.db")
        ordered = any(item.ordered for item in self._consumers())
        found = judge(read(self.folder), rows, ordered=ordered)
        return replace(found, problems=self.problems)
