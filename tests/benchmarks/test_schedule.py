"""All messages are due at fixed times, and none is sent early."""

from __future__ import annotations

import time

import pytest

from benchmarks.speed.schedule import TICK, Ticker, schedule


@pytest.mark.parametrize(("rate", "count"), [(1000.0, 500), (333.0, 100), (90_000.0, 10_000)])
def test_the_schedule_is_even(rate: float, count: int) -> None:
    moments = list(schedule(rate, count))
    assert sum(due for _, due in moments) == count
    sent = 0
    for after, due in moments:
        sent += due
        assert abs(sent - (after + TICK) * rate) < 1.01 or sent == count


async def test_every_message_is_sent_and_none_early() -> None:
    sent = 0
    began = time.monotonic_ns()
    async with Ticker(5000.0, 250) as ticks:
        async for intended, due in ticks:
            assert began < intended <= time.monotonic_ns()
            sent += due
    assert sent == 250
