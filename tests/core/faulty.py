"""A scripted in-memory broker whose client raises, hangs, cancels or loses the answer."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from anymq.driver import (
    Clock,
    Listener,
    Nack,
    OrderedSource,
    Reader,
    Received,
    Rejected,
    Source,
    SourceLost,
    StoreRecords,
    SubscribeSpec,
)

from .scripted import Lost, Refused, ScriptedDriver


class Panic(BaseException):
    """An exception such as an extension module may raise."""


class Mute(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise TypeError("no text")


FAULTS: dict[str, Callable[[], BaseException]] = {
    "lost": lambda: Lost("x"),
    "source lost": lambda: SourceLost("x"),
    "refused": lambda: Refused("x"),
    "unknown": lambda: KeyError("x"),
    "timeout": lambda: TimeoutError("x"),
    "cancelled": asyncio.CancelledError,
    "panic": lambda: Panic("x"),
    "group": lambda: BaseExceptionGroup("x", [Panic("x")]),
    "mute": Mute,
    "stop": lambda: StopAsyncIteration("x"),
}
FAULT_KINDS = [*FAULTS, "hang", "answer lost"]
CALLS = ["subscribe", "receive", "ack", "nack", "release", "reject", "extend", "aclose"]


class FastClock(Clock):
    """A clock that runs fifty times as fast."""

    poll = 0.02
    speed = 50.0

    def monotonic(self) -> float:
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)


class FaultyDriver(ScriptedDriver):
    """A driver that keeps unsettled messages; `plan` lists the next faults by call."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[str] = deque()
        self.done: set[str] = set()
        self.counts: dict[str, int] = defaultdict(int)
        self.plan: dict[str, deque[str]] = defaultdict(deque)
        self.arrived = asyncio.Event()
        self.over = asyncio.Event()

    def add(self, bodies: Iterable[str]) -> None:
        self.waiting.extend(bodies)
        self.arrived.set()

    async def before(self, verb: str) -> bool:
        """Fail as planned; return whether only the answer is lost."""
        if not self.plan[verb]:
            return False
        kind = self.plan[verb].popleft()
        if kind == "answer lost":
            return True
        if kind == "hang":
            await self.over.wait()
            raise Lost("at last")
        raise FAULTS[kind]()

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        if await self.before("subscribe"):
            raise Lost("the answer")
        return FaultySource(self, spec.ack_deadline)


class FaultySource(Source, OrderedSource):
    def __init__(self, driver: FaultyDriver, lease: float) -> None:
        self.driver = driver
        self.lease = lease
        self.clock = FastClock()
        self.held: dict[str, float] = {}
        """The delivered messages, and the times when their leases end."""

    def _expire(self) -> None:
        now = self.clock.monotonic()
        over = [body for body, end in self.held.items() if end < now]
        for body in over:
            del self.held[body]
        self.driver.add(over)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        driver = self.driver
        if await driver.before("receive"):
            raise SourceLost("the answer")
        self._expire()
        if not driver.waiting:
            driver.arrived.clear()
            try:
                async with asyncio.timeout(wait):
                    await driver.arrived.wait()
            except TimeoutError:
                return []
        bodies = [driver.waiting.popleft() for _ in range(min(limit, len(driver.waiting)))]
        self.held.update(dict.fromkeys(bodies, self.clock.monotonic() + self.lease))
        return [
            Received(body.encode(), {}, position=body, token=body, redeliveries=driver.counts[body])
            for body in bodies
        ]

    async def _settle(self, verb: str, records: Sequence[Received], *, back: bool) -> None:
        lose = await self.driver.before(verb)
        for record in records:
            body = record.body.decode()
            if body not in self.held:
                continue
            del self.held[body]
            if back:
                self.driver.counts[body] += verb == "nack"
                self.driver.add([body])
            else:
                self.driver.done.add(body)
        if lose:
            raise Lost("the answer")

    async def ack(self, records: Sequence[Received]) -> None:
        await self._settle("ack", records, back=False)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        await self._settle("nack", [nack.received for nack in nacks], back=True)

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self._settle("release", [nack.received for nack in nacks], back=True)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        await self._settle("reject", [item.received for item in rejected], back=False)

    async def keep(self, nacks: Sequence[Nack]) -> None:
        raise AssertionError("ordered only")

    async def extend(self, records: Sequence[Received]) -> None:
        if await self.driver.before("extend"):
            raise Lost("the answer")
        end = self.clock.monotonic() + self.lease
        self.held.update(
            (body, end) for record in records if (body := record.body.decode()) in self.held
        )

    async def aclose(self) -> None:
        # The broker redelivers the messages of a closed source, also if the client fails.
        held, self.held = self.held, {}
        self.driver.add(sorted(held))
        await self.driver.before("aclose")


def core_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("anymq-")}
