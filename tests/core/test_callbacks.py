"""Callbacks of the application that raise: logged, without an effect on the core."""

from __future__ import annotations

import pytest

from anymq import App, Batch, Idempotency, KillSwitch, Retry
from anymq.testing import TestBroker
from anymq.testing.harness import random_name

BATCHES = pytest.mark.parametrize("batch", [None, Batch(size=2, wait=0.01)], ids=["plain", "batch"])


def broken(*_: object) -> None:
    raise ZeroDivisionError("the callback's own")


class Application:
    """An app that fails while `down`, and records handled messages."""

    def __init__(self, batch: Batch | None, kill_switch: KillSwitch | None, store: str) -> None:
        self.app = App()
        self.down = False
        self.done: list[str] = []
        self.app.subscriber(
            "t",
            group="g",
            kill_switch=kill_switch,
            retry=Retry(attempts=2, initial=0.01, jitter=False, in_place=1),
            idempotency=Idempotency(store, on_duplicate=broken),
            batch=batch,
        )(self.handle if batch is None else self.handle_many)

    async def handle(self, body: str) -> None:
        if self.down:
            raise ConnectionError("down")
        self.done.append(body)

    async def handle_many(self, bodies: list[str]) -> None:
        for body in bodies:
            await self.handle(body)


@BATCHES
async def test_on_change_that_raises_leaves_no_subscription_paused(
    batch: Batch | None, caplog: pytest.LogCaptureFixture
) -> None:
    switch = KillSwitch(minimum=4, pause=60, on_change=broken)
    application = Application(batch, switch, f"memory://{random_name()}")
    application.down = True
    bodies = [str(n) for n in range(20)]
    async with TestBroker(application.app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", bodies)
        await broker.advance(30)
        assert (
            "on_change failed for t (group g); the kill switch is open nevertheless"
            in caplog.messages
        )
        assert [item.paused for item in application.app.subscriptions] == [True]
        application.down = False
        for _ in range(10):
            await broker.advance(60)
        assert [item.paused for item in application.app.subscriptions] == [False]
        assert (
            "on_change failed for t (group g); the kill switch is closed nevertheless"
            in caplog.messages
        )
        dead = len(broker.dead_letters("t", group="g"))
        assert len(set(application.done)) + dead == len(bodies)
        assert dead <= 4
        await broker.publish("t", "later")
        await broker.advance(1)
        assert "later" in application.done


@BATCHES
async def test_on_duplicate_that_raises_dead_letters_nothing(
    batch: Batch | None, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application(batch, None, f"memory://{random_name()}")
    async with TestBroker(application.app) as broker:
        for _ in range(2):
            await broker.broker.publish("t", "one", id="o-17")
            await broker.broker.publish("t", "two", id="o-18")
            await broker.advance(1)
        assert sorted(application.done) == ["one", "two"]
        assert broker.dead_letters("t", group="g") == []
        info = await broker.broker.admin.describe("t", "g")
        assert (info.lag, info.in_flight) == (0, 0)
    lines = [line for line in caplog.messages if line.startswith("on_duplicate failed")]
    assert len(lines) == 2
