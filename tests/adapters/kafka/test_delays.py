"""Delayed publishing: never early, not lost, whoever has gone; and nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import Reader, Received, Record, SourceLost
from anymq.errors import ConfigurationError
from anymq_kafka import KafkaDriver, delays
from anymq_kafka.client.compat import TopicPartition
from anymq_kafka.delays import AT, MARGIN_SECONDS, TARGET, TIERS, TOPICS, delayed_copy, retry_topics
from anymq_kafka.messages import DUE
from brokers import Server
from tests.adapters.kafka.support import Bench, nothing, numbers
from tests.adapters.support import bodies, take, take_through

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Movers join at once: a test does not run for long."""
    monkeypatch.setattr(delays, "MOVER_CHECK_SECONDS", 0.5)


@given(st.floats(0.001, 5e7))
def test_a_record_waits_in_the_tier_that_leaves_it_time(seconds: float) -> None:
    now = time.time()
    record = Record(topic="orders", id="i", unique="u", body=b"", deliver_at=now + seconds)
    tier, copy = delayed_copy("orders", record)
    wait = dict(zip(TOPICS, (wait for _, wait in TIERS), strict=True))[tier]
    due, at = int(copy.headers[DUE]) / 1000, int(copy.headers[AT]) / 1000
    assert copy.headers[TARGET] == "orders"
    assert copy.deliver_at is None
    assert at >= now + seconds, "never early"
    if wait:
        assert due - time.time() <= wait, "a tier is a queue: all of it waits equally long"
        assert due <= at - MARGIN_SECONDS + 0.1
    else:
        assert due == at
    longer = [other for _, other in TIERS if other > wait]
    assert not longer or seconds < longer[0] + MARGIN_SECONDS + 0.1


async def test_each_arrives_in_its_time_and_order(bench: Bench, driver: KafkaDriver) -> None:
    source, reader = await bench.join(driver), await bench.join(driver, None, start="latest")
    # On a new cluster the first delay waits for its topics, and the others would all be late.
    await driver.publish([bench.record(9, key="k", deliver_at=time.time() + 3.5)])
    for each in (source, reader):
        await take(each, 1)
    now = time.time()
    delays = {0: 1.5, 1: 0.1, 2: 3.5, 3: 0.6, 4: 0.0}
    outcomes = await driver.publish(
        [bench.record(n, key="k", deliver_at=now + after) for n, after in delays.items()]
    )
    assert [isinstance(outcome, str) for outcome in outcomes] == [False] * 4 + [True]
    for body in (4, 1, 3, 0, 2):
        (received,) = await take(source, 1)
        assert int(received.body) == body
        assert 0 <= time.time() - now - delays[body] < 5.0
        assert received.key == "k"
        assert set(received.headers) == {"ce_id"}
    assert numbers(await take(reader, 5)) == [0, 1, 2, 3, 4]
    late = await bench.join(driver, "made meanwhile")
    assert numbers(await take(late, 6)) == [0, 1, 2, 3, 4, 9]
    assert await nothing(source, 0.3)


async def test_what_waits_holds_nobody_up(bench: Bench, driver: KafkaDriver) -> None:
    source = await bench.join(driver)
    now = time.time()
    await driver.publish([bench.record(n, deliver_at=now + 3600 + n) for n in range(3000)])
    await driver.publish([bench.record(b"soon", deliver_at=time.time() + 0.5)])
    await driver.publish([bench.record(b"live")])
    started = time.monotonic()
    assert bodies(await take(source, 2)) == [b"live", b"soon"]
    assert time.monotonic() - started < 15.0


async def test_longer_waits_go_from_tier_to_tier(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a month does, only faster."""
    tiers = (("soon", 0.0), ("2s", 0.2), ("10s", 0.7), ("1m", 2.0))
    monkeypatch.setattr(delays, "TIERS", tiers)
    monkeypatch.setattr(delays, "TOPICS", TOPICS[: len(tiers)])
    monkeypatch.setattr(delays, "MARGIN_SECONDS", 0.1)
    source = await bench.join(driver)
    now = time.time()
    await driver.publish([bench.record(n, deliver_at=now + 3.5 + n / 100) for n in range(30)])
    received = await take(source, 30)
    assert numbers(received) == list(range(30))
    assert all(_time(item) >= now + 3.5 + int(item.body) / 100 for item in received)


async def test_a_subscriber_moves_what_a_dead_publisher_delayed(bench: Bench) -> None:
    publisher = await bench.open()
    await publisher.publish([bench.record(n, deliver_at=time.time() + 2.0) for n in range(20)])
    await publisher.aclose()
    await asyncio.sleep(0)
    driver = await bench.open()
    assert numbers(await take(await bench.join(driver), 20)) == list(range(20))


async def test_what_cannot_be_delivered_yet_waits_on(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delays, "REFUSED_SECONDS", 0.5)
    later = bench.topic(f"{bench.name}.later")
    record = bench.record(b"early bird", name=later.name, deliver_at=time.time() + 0.1)
    assert await driver.publish([record]) == [None]
    source = await bench.join(driver)
    await driver.publish([bench.record(b"other", deliver_at=time.time() + 0.3)])
    assert bodies(await take(source, 1)) == [b"other"]
    await driver.declare(later)
    assert bodies(await take(await bench.join(driver, topic=later), 1)) == [b"early bird"]


async def test_a_mover_whose_consumer_stalls_joins_again(
    driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Stalled(Reader):
        stall = 0.0

        def __init__(self, *_: object, **__: object) -> None:
            pass

        async def join(self) -> None:
            pass

        async def receive(self, limit: int, wait: float) -> Sequence[Received]:
            await asyncio.sleep(0)
            return ()

        async def undelivered(self) -> object:
            return "record 7"

        async def aclose(self, *_: object) -> None:
            closed.append(True)

    monkeypatch.setattr(delays, "GroupMember", Stalled)
    with pytest.raises(SourceLost, match="record 7"):
        await driver._mover._move_all()
    assert closed


@pytest.mark.xdist_group("kafka-faults")
async def test_it_survives_the_server(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        now = time.time()
        outcomes = await driver.publish(
            [bench.record(n, deliver_at=now + 1 + n / 10) for n in range(100)]
        )
        await asyncio.to_thread(faulty.kill)
        assert outcomes == [None] * 100
        await asyncio.to_thread(faulty.up)
        got: dict[int, float] = {}
        while len(got) < 100:
            for item in await take_through(source, 1, seconds=60.0):
                got.setdefault(int(item.body), _time(item))
        assert all(moment >= now + 1 + number / 10 for number, moment in got.items())


def _time(item: Received) -> float:
    assert item.time is not None
    return item.time


async def test_nobody_reaches_the_topics_of_the_engine_through_those_in_which_records_wait(
    bench: Bench, driver: KafkaDriver
) -> None:
    """Another program writes to them; what it wants to have published elsewhere is dropped."""
    source = await bench.join(driver)
    await driver.publish([bench.record(0, deliver_at=time.time() + 0.2)])
    assert numbers(await take(source, 1)) == [0]
    private = retry_topics(f"{bench.name}.billing")[0]
    targets = ["__consumer_offsets", "_anymq.anything", private, TOPICS[1], "not a name", ""]
    async with bench.producer() as foreign:
        for target in [*targets, bench.name]:
            at = b"%d" % int(time.time() * 1000)
            headers = [(TARGET, target.encode()), (AT, at), (DUE, at)]
            await foreign.send_and_wait(TOPICS[0], b"1", headers=headers, partition=0)
    assert numbers(await take(source, 1)) == [1]
    assert await nothing(source, 0.3)
    async with bench.consumer() as consumer:
        ends = await consumer.end_offsets([TopicPartition(private, 0)])
        assert set(ends.values()) == {0}


async def test_what_is_mapped_to_a_reserved_name_cannot_be_delayed(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.declare(bench.topic("mapped", native="_anymq.mapped", create=False))
    records = [bench.record(1), bench.record(2, name="mapped", deliver_at=time.time() + 60)]
    stored, refused = await driver.publish(records)
    assert isinstance(stored, str)
    assert isinstance(refused, ConfigurationError)
