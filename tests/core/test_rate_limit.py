"""`RateLimit` in real time."""

from __future__ import annotations

import asyncio
import time

import pytest

from anymq import Acknowledge, ConfigurationError, Middleware, RateLimit, connect
from anymq.testing.tools import until


async def test_no_more_than_the_rate_after_the_burst() -> None:
    times: list[float] = []

    async def handle(body: str) -> None:
        times.append(time.monotonic())

    async with connect("memory://") as broker:
        chain: list[Middleware] = [Acknowledge(), RateLimit(4, burst=5)]
        async with broker.subscribe(
            "t", group="g", handler=handle, concurrency=4, middleware=chain
        ):
            await broker.publish_many("t", [str(n) for n in range(7)])
            await until(lambda: len(times) == 7)
    assert times[4] - times[0] < 1.0, "the burst: at four a second it would take a second"
    assert times[6] - times[0] >= 0.45, "two more at four a second"


async def test_handlers_may_share_a_limit() -> None:
    times: list[float] = []

    async def handle(body: str) -> None:
        times.append(time.monotonic())

    chain: list[Middleware] = [Acknowledge(), RateLimit(10, burst=1)]
    async with (
        connect("memory://") as broker,
        broker.subscribe("a", group="g", handler=handle, middleware=chain),
        broker.subscribe("b", group="g", handler=handle, middleware=chain),
    ):
        await asyncio.gather(*(broker.publish(topic, "x") for topic in "aabb"))
        await until(lambda: len(times) == 4)
    assert times[3] - times[0] >= 0.28


async def test_draining_does_not_wait_for_the_rate() -> None:
    done: list[str] = []

    async def handle(body: str) -> None:
        done.append(body)

    async with connect("memory://drained-rate") as broker:
        chain: list[Middleware] = [Acknowledge(), RateLimit(1, per=3600)]
        async with broker.subscribe("t", group="g", handler=handle, middleware=chain):
            await broker.publish_many("t", ["a", "b"])
            await until(lambda: done)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        async with broker.subscribe("t", group="g") as deliveries:
            again = await anext(deliveries)
            assert again.message.body.decode() not in done
            assert again.attempt == 1
            await again.ack()


def test_invalid_settings_are_refused() -> None:
    for bad in ((0, 1, None), (1, 0, None), (1, 1, 0.5)):
        with pytest.raises(ConfigurationError, match="RateLimit"):
            RateLimit(bad[0], bad[1], bad[2])
