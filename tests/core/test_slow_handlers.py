"""Slow handlers: the log of hanging ones, and their deadline."""

from __future__ import annotations

import asyncio

import pytest

from anymq import Acknowledge, App, Batch, DeadLetter, Deadline, Retry, connect
from anymq.middleware import DEFAULT_CHAIN, Middleware
from anymq.testing import VirtualClock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "has been running for" in line]


async def test_a_hanging_handler_is_logged_once_and_then_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    clock.poll = 5.0
    begun = asyncio.Event()

    async def handle(body: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with connect("memory://", clock=clock) as broker:
        subscription = broker.subscribe(
            "t", group="g", handler=handle, middleware=[Acknowledge()], drain_timeout=0
        )
        async with subscription:
            message = await broker.publish("t", "x")
            await clock.advance(1)
            assert begun.is_set()
            await clock.advance(280)
            assert lines(caplog) == []
            await clock.advance(30)
            (line,) = lines(caplog)
            assert f"handler of message {message.id} from t (group g, attempt 1)" in line
            await clock.advance(3600)
            assert 3 <= len(lines(caplog)) <= 5
            closing = asyncio.create_task(subscription.aclose())
            while not closing.done():
                await clock.advance(5)


async def test_a_handler_far_beyond_its_usual_time_is_logged_earlier(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    clock.poll = 5.0

    async def handle(body: str) -> None:
        await clock.sleep(1 if body != "hang" else 10_000)

    async with connect("memory://", clock=clock) as broker:
        subscription = broker.subscribe("t", group="g", handler=handle, drain_timeout=0)
        async with subscription:
            await broker.publish_many("t", [str(n) for n in range(40)])
            await clock.advance(60)
            await broker.publish("t", "hang")
            await clock.advance(70)
            (line,) = lines(caplog)
            assert "usually it takes" in line
            closing = asyncio.create_task(subscription.aclose())
            while not closing.done():
                await clock.advance(5)


async def hours(clock: VirtualClock, count: float) -> None:
    await clock.advance(count * 3600)


@pytest.mark.parametrize("batch", [None, Batch(size=2, wait=0.1)], ids=["plain", "batch"])
async def test_a_handler_over_its_deadline_fails(
    batch: Batch | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    begun: list[str] = []

    async def plain(body: str) -> None:
        begun.append(body)
        if body == "hang":
            await asyncio.Event().wait()

    async def many(bodies: list[str]) -> None:
        for body in bodies:
            await plain(body)

    retry = Retry(attempts=3, initial=0.01, jitter=False, in_place=1)
    chain: list[Middleware] = [Acknowledge(), DeadLetter(), retry, Deadline()]
    handler = plain if batch is None else many
    async with connect("memory://", clock=clock) as broker:
        subscription = broker.subscribe(
            "t", group="g", handler=handler, batch=batch, middleware=chain, drain_timeout=0
        )
        async with subscription:
            await broker.publish("t", "hang")
            await hours(clock, 2)
            assert begun == ["hang"] * 3
            (letter,) = await broker.admin.dead_letters("t", "g").list()
            assert "the handler took over 900 s" in str(letter.reason)
            await broker.publish("t", "fine")
            await hours(clock, 0.2)
            assert begun[-1] == "fine"
            assert subscription.in_flight == 0
            closing = asyncio.create_task(subscription.aclose())
            while not closing.done():
                await clock.advance(600)


async def test_without_a_deadline_a_handler_is_not_cancelled() -> None:
    clock = VirtualClock()
    done: list[str] = []

    async def handle(body: str) -> None:
        await clock.sleep(5000)
        done.append(body)

    chain: list[Middleware] = [Acknowledge(), DeadLetter(), Retry()]
    async with connect("memory://", clock=clock) as broker:
        subscription = broker.subscribe(
            "t", group="g", handler=handle, middleware=chain, drain_timeout=0
        )
        async with subscription:
            await broker.publish("t", "long")
            await hours(clock, 2)
            assert done == ["long"]
            closing = asyncio.create_task(subscription.aclose())
            while not closing.done():
                await clock.advance(600)


def test_the_default_chains_have_a_deadline() -> None:
    assert any(isinstance(link, Deadline) for link in DEFAULT_CHAIN)
    app = App()
    app.subscriber("t", group="g")(_nothing)
    app.subscriber("t", group="none", deadline=None)(_nothing)
    has = [
        any(isinstance(x, Deadline) for x in item.options.middleware or ())
        for item in app.subscribers
    ]
    assert has == [True, False]


async def _nothing(body: str) -> None:
    """Handle it."""
