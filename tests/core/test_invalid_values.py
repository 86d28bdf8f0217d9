"""Invalid arguments, times and headers, and cancelled workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from anymq import Broker, ConfigurationError, Delivery, Reject, RetryAfter
from anymq.driver import ATTEMPT, Binding, Received, attempt_of
from anymq.errors import StopLane
from anymq.testing.tools import take, until
from anymq.wire.cloudevents import decode

from .faulty import Mute
from .scripted import ScriptedDriver, scripted

Both = tuple[Broker, ScriptedDriver]


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()


@pytest.mark.parametrize("bad", [None, b"why", 5, ValueError("x")], ids=repr)
def test_a_reason_must_be_text(bad: Any) -> None:
    for signal in (Reject, StopLane):
        with pytest.raises(ConfigurationError, match="reason"):
            signal(bad)


@pytest.mark.parametrize("bad", ["1", None, float("nan"), float("inf"), 1e12, True], ids=repr)
def test_a_delay_must_be_a_number_or_a_timedelta(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="delay"):
        RetryAfter(bad)
    assert RetryAfter(timedelta(minutes=1)).delay == 60.0


async def test_an_invalid_argument_leaves_the_delivery_unsettled(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.put("a", "b")
        first, second = await take(deliveries, 2)
        bad: list[Callable[[Any], Any]] = [
            lambda it: it.nack("soon"),
            lambda it: it.reject(None),
            lambda it: it.reject("no", topic="not a topic"),
        ]
        for call in bad:
            with pytest.raises(ConfigurationError):
                await call(first)
            assert not first.settled
        await first.nack(timedelta(seconds=2))
        await second.reject("no", error=Mute())
        await until(lambda: deliveries.in_flight == 0)
    assert source.settled("nack") == ["a"]
    assert source.settled("reject") == ["b"]


@pytest.mark.parametrize("time", [1.7e15, 1.7e18, -1e15, float("nan"), float("inf")])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_time_beyond_datetime_is_none(both: Both, time: float, *, ordered: bool) -> None:
    broker, driver = both
    handled: list[bytes] = []

    async def handle(body: bytes, delivery: Delivery) -> None:
        handled.append(body)
        if body == b"poison" and handled.count(body) < 3:
            raise RuntimeError("no")
        assert delivery.message.time is None

    async with broker.subscribe("t", group="g", handler=handle, ordered=ordered) as deliveries:
        source = driver.sources[0]
        for body in (b"poison", b"next"):
            source.inbox.put_nowait(Received(body, {}, position="p", token=body, time=time))
        await until(lambda: b"next" in handled)
        await until(lambda: ordered or deliveries.in_flight == 0)
    assert len(driver.sources) == 1, "nothing was lost"


@pytest.mark.parametrize("text", ["9" * 5000, "-1", "0", "1e3", "²", "٣", ""])
def test_an_attempt_header_beyond_its_bound_is_ignored(text: str) -> None:
    received = Received(b"", {ATTEMPT: text}, position="1", token=None)
    assert attempt_of(received) == 1
    assert decode(received, Binding(), "t").body == b""


async def test_a_pause_lasts_until_all_its_holders_have_resumed(both: Both) -> None:
    broker, _ = both
    async with broker.subscribe("t", group="g") as deliveries:
        deliveries.pause()
        deliveries.pause(holder="switch")
        deliveries.resume(holder="switch")
        assert deliveries.paused
        deliveries.resume()
        assert not deliveries.paused


async def test_a_worker_cancelled_from_outside_is_replaced(both: Both) -> None:
    broker, driver = both
    handled: list[bytes] = []

    async def handle(body: bytes) -> None:
        handled.append(body)
        if body == b"a":
            inner = asyncio.create_task(asyncio.sleep(60))
            inner.cancel()
            await inner

    async with broker.subscribe("t", group="g", handler=handle):
        source = driver.sources[0]
        source.put("a", "b")
        await until(lambda: source.settled("ack") == ["b"])
        assert source.settled("nack") == ["a"], "a failed attempt, not a release"
