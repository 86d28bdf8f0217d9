"""Helpers of the tests: waiting for deliveries, for conditions, for other processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..consuming.delivery import Delivery
from ..consuming.subscription import Subscription

if TYPE_CHECKING:
    import pytest

WAIT_SECONDS = 60.0
"""Seconds after which a waiting test fails: many times the need of an idle machine."""


async def take(
    subscription: Subscription, count: int, *, within: float = WAIT_SECONDS
) -> list[Delivery]:
    """Return the next `count` deliveries, unsettled."""
    taken: list[Delivery] = []
    try:
        async with asyncio.timeout(within):
            while len(taken) < count:
                taken.append(await anext(subscription))
    except TimeoutError:
        raise AssertionError(
            f"{len(taken)} of {count} deliveries within {within} s: {taken}"
        ) from None
    return taken


async def take_acked(
    subscription: Subscription, count: int, *, within: float = WAIT_SECONDS
) -> list[Delivery]:
    """Return the next `count` deliveries, each acked on arrival."""
    taken: list[Delivery] = []
    for _ in range(count):
        (delivery,) = await take(subscription, 1, within=within)
        await delivery.ack()
        taken.append(delivery)
    return taken


async def take_one_of(
    *subscriptions: Subscription, within: float = WAIT_SECONDS
) -> tuple[Delivery, Subscription]:
    """Return the first delivery of any of the subscriptions, and that subscription."""
    racing = {asyncio.create_task(_next(item)): item for item in subscriptions}
    done, pending = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED, timeout=within)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    assert len(done) == 1, f"{len(done)} deliveries within {within} s, expected one"
    (task,) = done
    return task.result(), racing[task]


async def _next(subscription: Subscription) -> Delivery:
    return await anext(subscription)


async def silent(subscription: Subscription, seconds: float) -> None:
    """Assert that nothing is delivered for `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            delivery = await anext(subscription)
    except TimeoutError:
        return
    raise AssertionError(f"unexpected {delivery}")


async def until(
    condition: Callable[[], Any], *, within: float = WAIT_SECONDS, what: str = ""
) -> float:
    """Wait until `condition()` holds; return the seconds it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within} s: {what or condition}")
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def eventually(
    look: Callable[[], Awaitable[Any]],
    holds: Callable[[Any], bool],
    *,
    within: float = WAIT_SECONDS,
) -> Any:
    """Return the result of `look` once it `holds`, because brokers report figures with a delay."""
    seen: Any = None
    try:
        async with asyncio.timeout(within):
            while True:
                seen = await look()
                if holds(seen):
                    return seen
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {seen}") from None


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Shift the wall clock of this process by `step` seconds."""
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9 + step)


def bodies(deliveries: list[Delivery]) -> list[str]:
    """Return the bodies as text."""
    return [delivery.message.body.decode() for delivery in deliveries]


class Worker:
    """Another process, which runs `anymq.testing.worker` and prints events as JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._listener: asyncio.Task[None] | None = None

    async def hear(self, what: str, *, within: float = WAIT_SECONDS) -> dict[str, Any]:
        """Return the next event named `what`, and collect all events in `said`."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(within):
                while line := await self.process.stdout.readline():
                    event: dict[str, Any] = json.loads(line)
                    self.said.append(event)
                    if event["event"] == what:
                        return event
        except TimeoutError:
            raise AssertionError(f"no event {what!r} from the worker: {self.said[-5:]}") from None
        raise AssertionError(f"the worker ended before event {what!r}: {self.said[-5:]}")

    def listen(self, what: str) -> list[dict[str, Any]]:
        """Return a list to which every later event named `what` is added.

        All events are still collected in `said`.
        """
        heard: list[dict[str, Any]] = []

        async def listening() -> None:
            assert self.process.stdout is not None
            while line := await self.process.stdout.readline():
                event = json.loads(line)
                self.said.append(event)
                if event["event"] == what:
                    heard.append(event)

        self._listener = asyncio.create_task(listening())
        return heard

    def stop(self) -> None:
        """SIGSTOP it."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT it."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL it, and wait for its end. Its last events are in `said`."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        if self.process.returncode is None:
            self.process.kill()
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.endswith(b"\n"):
                self.said.append(json.loads(line))
        await self.process.wait()


@asynccontextmanager
async def worker(task: str, **arguments: Any) -> AsyncIterator[Worker]:
    """Run the task in another process, which is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "anymq.testing.worker",
        task,
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    running = Worker(process)
    try:
        yield running
    finally:
        await running.kill()
