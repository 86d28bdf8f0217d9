"""`KillSwitch` on a virtual clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from anymq import App, Batch, ConfigurationError, Delivery, KillSwitch, Reject, Retry, RetryAfter
from anymq.testing import TestBroker

FAST = Retry(attempts=2, initial=0.01, jitter=False, in_place=1)


class Outage:
    """An app whose handler fails while `down`, and whose switch records its states."""

    def __init__(self, *, batch: Batch | None = None, retry: Retry = FAST) -> None:
        self.app = App()
        self.down = True
        self.error: Callable[[], Exception] = lambda: ConnectionError("down")
        self.calls: list[str] = []
        self.done: list[str] = []
        self.states: list[str] = []
        switch = KillSwitch(
            minimum=4, pause=60, on_change=lambda state, _: self.states.append(state)
        )
        register = self.app.subscriber(
            "t", group="g", kill_switch=switch, retry=retry, concurrency=3, batch=batch
        )
        register(self.handle if batch is None else self.handle_many)

    async def handle(self, body: str) -> None:
        self.calls.append(body)
        if self.down:
            raise self.error()
        self.done.append(body)

    async def handle_many(self, bodies: list[str]) -> None:
        for body in bodies:
            await self.handle(body)


async def test_an_outage_does_not_fill_the_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    caplog.set_level(logging.INFO, "anymq.kill_switch")
    bodies = [str(n) for n in range(50)]
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", bodies)
        await broker.advance(30)
        assert outage.states == ["open"]
        dead = len(broker.dead_letters("t", group="g"))
        assert dead <= 3, "what had used up its attempts before the switch opened"
        calls = len(outage.calls)
        await broker.advance(25)
        assert len(outage.calls) == calls, "nothing is tried while it is open"
        for _ in range(5):
            await broker.advance(60)
        assert outage.states == ["open", *["half-open", "open"] * 5]
        assert len(outage.calls) == calls + 5 * 2, "one delivery is tried, in its two attempts"
        outage.down = False
        await broker.advance(300)
        assert outage.states[-2:] == ["half-open", "closed"]
        assert len(broker.dead_letters("t", group="g")) == dead
        assert len(outage.done) == 50 - dead
        assert len(set(outage.done)) == len(outage.done)
    changes = [record for record in caplog.records if record.name == "anymq.kill_switch"]
    assert len(changes) == len(outage.states)


async def test_the_probe_is_fetched_if_no_delivery_is_buffered() -> None:
    outage = Outage(retry=Retry(attempts=5, initial=1000, cap=1000, jitter=False, in_place=0))
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        for n in range(4):
            await broker.publish("t", str(n))
        await broker.advance(1)
        assert outage.states == ["open"]
        outage.down = False
        await broker.advance(100)
        assert outage.states == ["open", "half-open", "closed"]
        await broker.advance(2000)
        assert sorted(outage.done) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("error", [Reject("bad"), RetryAfter(0.1, counted=False)])
async def test_invalid_messages_do_not_open_the_switch(error: Exception) -> None:
    outage = Outage()
    outage.error = lambda: error
    async with TestBroker(outage.app) as broker:
        for n in range(20):
            await broker.publish("t", str(n))
        await broker.drain()
        assert len(outage.calls) >= 20
        assert outage.states == []


async def test_failures_below_the_ratio_do_not_open_the_switch() -> None:
    outage = Outage()
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        for n in range(30):
            outage.down = n % 3 == 2
            await broker.publish("t", str(n))
            await broker.drain()
            await broker.advance(0.1)
        assert outage.states == []
        outage.down = True
        await broker.advance(60)
        for n in range(3):
            await broker.publish("t", str(n))
        await broker.advance(1)
        assert outage.states == [], "too few within the window"


async def test_an_invalid_message_as_probe_decides_nothing() -> None:
    outage = Outage()
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", [str(n) for n in range(10)])
        await broker.advance(30)
        assert outage.states == ["open"]
        rejected = iter([True, True])
        outage.error = lambda: Reject("bad") if next(rejected, False) else ConnectionError("down")
        await broker.advance(40)
        assert outage.states == ["open", "half-open", "open"]
        assert next(rejected, None) is None


async def test_draining_does_not_wait_for_the_pause() -> None:
    outage = Outage()
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", [str(n) for n in range(20)])
        await broker.advance(5)
        assert outage.states == ["open"]
        (subscription,) = outage.app.subscriptions
        assert subscription.paused
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert outage.states == ["open"]


async def test_batches_open_and_probe_the_switch() -> None:
    outage = Outage(batch=Batch(size=5, wait=1))
    async with TestBroker(outage.app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", [str(n) for n in range(20)])
        await broker.advance(10)
        assert outage.states == ["open"]
        outage.down = False
        await broker.advance(200)
        assert outage.states == ["open", "half-open", "closed"]
        assert len(outage.done) == 20 - len(broker.dead_letters("t", group="g"))


async def test_a_nack_by_hand_counts_as_a_failure() -> None:
    app = App()
    states: list[str] = []

    @app.subscriber(
        "t",
        group="g",
        kill_switch=KillSwitch(minimum=4, on_change=lambda state, _: states.append(state)),
    )
    async def handle(delivery: Delivery) -> None:
        await delivery.nack(1000)

    async with TestBroker(app) as broker:
        for n in range(4):
            await broker.publish("t", str(n))
        await broker.drain()
        assert states == ["open"]


def test_invalid_settings_are_refused() -> None:
    settings: list[dict[str, Any]] = [
        {"threshold": 0},
        {"threshold": 1.1},
        {"window": 0},
        {"pause": 0},
        {"minimum": 0},
    ]
    for bad in settings:
        with pytest.raises(ConfigurationError, match="KillSwitch"):
            KillSwitch(**bad)
