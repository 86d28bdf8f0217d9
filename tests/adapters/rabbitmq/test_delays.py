"""The ladder: never early, hardly late, for any length, for the right queue."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq_rabbitmq import RabbitMQDriver, delays
from anymq_rabbitmq.client import protocol
from tests.adapters.rabbitmq.support import Bench, nothing, numbers, store, take


@given(st.floats(0.001, delays.LONGEST))
def test_an_address_says_the_delay_rounded_up(delay: float) -> None:
    level, key = delays.address("orders.billing", delay)
    *digits, _ = key.split(".")
    steps = int("".join(digits), 2)
    assert delay <= steps * delays.STEP + 1e-6 < delay + delays.STEP + 1e-6
    assert len(digits) == delays.LEVELS
    assert level == int(math.log2(steps))
    assert len(key) < 256


def test_what_is_longer_is_the_longest() -> None:
    assert delays.address("q", 1e12) == delays.address("q", delays.LONGEST)
    assert delays.LONGEST > 300 * 86400


@pytest.mark.rabbitmq
async def test_delays_are_kept(bench: Bench, driver: RabbitMQDriver) -> None:
    source, other = await bench.join(driver), await bench.join(driver, "audit")
    await store(driver, bench.records(8))
    received = await take(source, 8)
    await take(other, 8)
    await source.nack([bench.nack(received[0], 0.1)])
    await take(source, 1)  # The ladder is there.
    wanted = {1: 0.05, 2: 0.1, 3: 0.31, 4: 0.7, 5: 1.0, 6: 1.55, 7: 2.4}
    started = time.monotonic()
    await source.nack([bench.nack(received[number], delay) for number, delay in wanted.items()])
    for number, delay in sorted(wanted.items(), key=lambda item: item[1]):
        (back,) = await take(source, 1)
        late = time.monotonic() - started - delay
        assert numbers([back]) == [number]
        assert 0 <= late < 3.0
    await nothing(other, 0.1)


@pytest.mark.rabbitmq
async def test_many_rounds_are_no_loop(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await store(driver, [bench.record(1)])
    for _ in range(5):
        (received,) = await take(source, 1)
        await source.nack([bench.nack(received, 0.3)])
    assert numbers(await take(source, 1)) == [1]


@pytest.mark.rabbitmq
async def test_what_waits_for_a_deleted_group_stops_nobody(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    gone, source = await bench.join(driver, "gone"), await bench.join(driver)
    await store(driver, bench.records(100))
    doomed = await take(gone, 100)
    (received, *_) = await take(source, 100)
    await gone.nack([bench.nack(one, 0.5) for one in doomed])
    await protocol.delete_queue(driver._consuming, f"{bench.name}.gone")
    await source.nack([bench.nack(received, 1.0)])
    assert numbers(await take(source, 1)) == numbers([received])


@pytest.mark.rabbitmq
async def test_a_ladder_that_was_deleted_is_made_again(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    driver._ladder._complete = True  # As if it had been there, and then was not.
    source = await bench.join(driver)
    await store(driver, [bench.record(1)])
    (received,) = await take(source, 1)
    prefix = delays.PREFIX
    delays.PREFIX = f"{prefix}-{bench.name}"
    try:
        with pytest.raises(Exception, match="exchange"):
            await source.nack([bench.nack(received, 0.1)])
    finally:
        delays.PREFIX = prefix
    driver._ladder.forget()
    await source.nack([bench.nack(received, 0.1)])
    assert numbers(await take(source, 1)) == [1]
