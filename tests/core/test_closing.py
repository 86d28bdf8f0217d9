"""Closing: from a handler, while entering, while handlers publish, and a parent's cancellation."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from anymq import App, Closed, connect
from anymq.middleware import Acknowledge, DeadLetter, Middleware, Retry
from anymq.testing.tools import take, until

from .scripted import ScriptedDriver, scripted

LIMIT_SECONDS = 60.0


async def test_handlers_that_drain_may_publish() -> None:
    url = f"memory://{uuid4().hex}"
    started, go = asyncio.Event(), asyncio.Event()
    async with connect(url) as other:
        broker = await connect(url)

        async def handle(body: bytes) -> None:
            started.set()
            await go.wait()
            await broker.publish("out", body)

        chain: list[Middleware] = [Acknowledge(), DeadLetter(), Retry(attempts=1)]
        subscription = broker.subscribe("t", group="g", handler=handle, middleware=chain)
        await subscription.__aenter__()
        await broker.publish("t", b"x")
        await started.wait()
        closing = asyncio.create_task(broker.aclose())
        await until(lambda: subscription.closing)
        go.set()
        await closing
        assert await other.admin.dead_letters("t", "g").count() == 0
        with pytest.raises(Closed):
            await broker.publish("out", b"y")


@pytest.mark.parametrize("what", ["broker", "subscription"])
async def test_a_handler_that_closes_does_not_wait_for_itself(what: str) -> None:
    broker, driver = await scripted()
    ended = asyncio.Event()

    async def handle(body: bytes) -> None:
        await (broker if what == "broker" else subscription).aclose()
        ended.set()

    subscription = broker.subscribe("t", group="g", handler=handle, drain_timeout=3600)
    async with asyncio.timeout(LIMIT_SECONDS):
        await subscription.__aenter__()
        driver.sources[0].put("a")
        await ended.wait()
        await subscription.wait_closed()
        await broker.aclose()
    assert driver.sources[0].settled("ack") == ["a"]
    assert driver.closed


async def test_a_broker_can_be_closed_while_a_subscription_is_entered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, driver = await scripted()
    entered = asyncio.Event()

    async def subscribe(self: ScriptedDriver, spec: object, listener: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ScriptedDriver, "subscribe", subscribe)
    entering = asyncio.create_task(broker.subscribe("t", group="g").__aenter__())
    await entered.wait()
    async with asyncio.timeout(LIMIT_SECONDS):
        await broker.aclose()
        with pytest.raises(Closed):
            await entering
    assert driver.closed


async def test_an_iterating_task_has_time_to_settle() -> None:
    broker, driver = await scripted()
    taken, go = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with broker.subscribe("t", group="g", drain_timeout=LIMIT_SECONDS) as deliveries:
            driver.sources[0].put("a")
            async for delivery in deliveries:
                taken.set()
                await go.wait()
                await delivery.ack()

    reading = asyncio.create_task(read())
    await taken.wait()
    closing = asyncio.create_task(broker.aclose())
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(reading, closing)
    assert driver.sources[0].settled("ack") == ["a"]


@pytest.mark.parametrize(
    ("group", "ordered"), [("g", False), ("g", True), (None, False)], ids=["g", "ordered", "all"]
)
async def test_closing_waits_for_dispatched_deliveries_and_not_for_buffered_ones(
    group: str | None, ordered: bool
) -> None:
    broker, driver = await scripted()
    subscription = broker.subscribe(
        "t", group=group, ordered=ordered, drain_timeout=2 * LIMIT_SECONDS
    )
    await subscription.__aenter__()
    source = driver.sources[0]
    source.put_keyed(("a", "a1"), ("b", "b1"), ("b", "b2"), ("c", "c1"), ("c", "c2"))
    failed, held = await take(subscription, 2)
    await failed.nack(10 * LIMIT_SECONDS)
    closing = asyncio.create_task(broker.aclose())
    await until(lambda: subscription.closing)
    await asyncio.wait((closing,), timeout=0.8)
    assert not closing.done()
    await held.ack()
    async with asyncio.timeout(LIMIT_SECONDS):
        await closing
    assert source.settled("ack") == (["b1"] if group else [])


async def test_an_ack_after_the_drain_is_ignored() -> None:
    broker, driver = await scripted()
    async with broker.subscribe("t", group="g", drain_timeout=0) as deliveries:
        driver.sources[0].put("a")
        delivery = await anext(deliveries)
    await delivery.ack()
    assert driver.sources[0].settled("release") == ["a"]
    await broker.aclose()


async def test_serve_propagates_the_cancellation_of_its_parent() -> None:
    app = App("memory://", drain_timeout=LIMIT_SECONDS)
    handling = asyncio.Event()

    @app.subscriber("t", group="g")
    async def handle(body: bytes) -> None:
        handling.set()
        await asyncio.Event().wait()

    serving = asyncio.create_task(app.serve())
    await until(lambda: len(app.subscriptions) == 1 and app.subscriptions[0]._fetcher is not None)
    await app.publish("t", b"x")
    await handling.wait()
    subscription = app.subscriptions[0]
    app.stop()
    await until(lambda: subscription.closing)
    serving.cancel()
    async with asyncio.timeout(LIMIT_SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await serving
