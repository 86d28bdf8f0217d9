"""A handler that hangs is said, once and then rarely."""

from __future__ import annotations

import asyncio

import pytest

from anymq import connect
from anymq.testing import VirtualClock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "has not ended for" in line]


async def test_one_that_hangs_is_named_once_and_then_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    clock.poll = 5.0
    begun = asyncio.Event()

    async def handle(body: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with connect("memory://", clock=clock) as broker:
        subscription = broker.subscribe("t", group="g", handler=handle, drain_timeout=0)
        async with subscription:
            message = await broker.publish("t", "x")
            await clock.advance(1)
            assert begun.is_set()
            await clock.advance(280)
            assert lines(caplog) == []
            await clock.advance(30)
            (line,) = lines(caplog)
            assert f"handling {message.id} from t (group g, attempt 1)" in line
            await clock.advance(3600)
            assert 3 <= len(lines(caplog)) <= 5
            closing = asyncio.create_task(subscription.aclose())
            while not closing.done():
                await clock.advance(5)


async def test_what_is_far_beyond_the_usual_is_said_sooner(
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
