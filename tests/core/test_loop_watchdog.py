"""A blocked event loop: the log names the handler and the state of its lease."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import aclosing

import pytest

from anymq import Batch, Delivery, connect
from anymq.consuming.loop_watchdog import LoopWatchdog
from anymq.driver import Received
from anymq.testing.tools import until

from .scripted import ScriptedSource, scripted

BLOCK = 1.6


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "blocked the event loop" in line]


def block() -> None:
    time.sleep(BLOCK)


async def test_a_lease_that_was_not_renewed_is_logged_as_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, driver = await scripted()

    async def handle(body: str) -> None:
        block()

    async with aclosing(broker), broker.subscribe("t", group="g", handler=handle, ack_deadline=0.6):
        driver.sources[0].put("x")
        await until(lambda: lines(caplog))
    (line,) = lines(caplog)
    assert "handler of message" in line
    assert "from t (group g)" in line
    assert "its lease was lost" in line
    assert "test_loop_watchdog.py:" in line


async def test_a_lease_is_renewed_while_the_loop_is_blocked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    async def extend_apart(self: ScriptedSource, records: list[Received]) -> bool:
        threads.append(threading.current_thread().name)
        return True

    monkeypatch.setattr(ScriptedSource, "extend_apart", extend_apart)
    broker, driver = await scripted()

    async def handle(body: str) -> None:
        if body == "x":
            block()

    async with aclosing(broker), broker.subscribe("t", group="g", handler=handle, ack_deadline=1.5):
        source = driver.sources[0]
        source.put("x", *"abc")
        await until(lambda: "x" in source.settled("ack") and lines(caplog))
    assert set(threads) == {"anymq-lookout"}
    (line,) = lines(caplog)
    assert "its lease was kept" in line


async def test_failed_or_hanging_renewals_do_no_harm(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    async def extend_apart(self: ScriptedSource, records: list[Received]) -> bool:
        asked.append(time.monotonic())
        if len(asked) == 1:
            await asyncio.sleep(60)
        raise KeyError("the client's own")

    monkeypatch.setattr(ScriptedSource, "extend_apart", extend_apart)
    broker, driver = await scripted()

    async def handle(body: str) -> None:
        time.sleep(3.5)  # noqa: ASYNC251

    async with aclosing(broker), broker.subscribe("t", group="g", handler=handle, ack_deadline=2.5):
        driver.sources[0].put("x")
        await until(lambda: lines(caplog))
    assert len(asked) > 1
    assert "its lease was lost" in lines(caplog)[0]


async def test_the_handler_of_a_batch_is_named(caplog: pytest.LogCaptureFixture) -> None:
    broker, driver = await scripted()

    async def handle(bodies: list[str]) -> None:
        block()

    async with (
        aclosing(broker),
        broker.subscribe("t", group="g", handler=handle, batch=Batch(size=2, wait=0.05)),
    ):
        driver.sources[0].put("x", "y")
        await until(lambda: lines(caplog))
    assert "from t (group g)" in lines(caplog)[0]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 does not tell a task's context")
async def test_a_task_started_by_a_handler_is_named(caplog: pytest.LogCaptureFixture) -> None:
    broker, driver = await scripted()

    async def child() -> None:
        block()

    async def handle(delivery: Delivery) -> None:
        await asyncio.gather(child(), asyncio.sleep(0))

    async with aclosing(broker), broker.subscribe("t", group="g", handler=handle):
        driver.sources[0].put("x")
        await until(lambda: lines(caplog))
    assert "from t (group g)" in lines(caplog)[0]


async def test_handlers_without_await_yield_to_the_loop_between_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, driver = await scripted()
    begun: list[str] = []
    turns: list[int] = []

    async def handle(body: str) -> None:
        begun.append(body)
        time.sleep(0.03)  # noqa: ASYNC251

    async with aclosing(broker), broker.subscribe("t", group="g", handler=handle):
        driver.sources[0].put(*(str(n) for n in range(60)))
        while len(begun) < 60:
            turns.append(len(begun))
            await asyncio.sleep(0)
    assert len(set(turns)) > 10
    assert not lines(caplog)


async def test_the_thread_ends_with_the_last_subscription() -> None:
    async with connect("memory://") as broker:
        async with broker.subscribe("t", group="g"), broker.subscribe("t", group="h"):
            (watchdog,) = [found for loop, found in LoopWatchdog._all.items() if loop.is_running()]
            assert watchdog._thread.is_alive()
        await until(lambda: not watchdog._thread.is_alive())
