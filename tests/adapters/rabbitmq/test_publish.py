"""Publishing: what arrives, and the outcome of each record."""

from __future__ import annotations

import asyncio
import time

import aio_pika
import pytest

from anymq.errors import (
    ConnectionLost,
    MessageTooLarge,
    NotFound,
    PublishTimeout,
    Throttled,
    TransientError,
    translate,
)
from anymq_rabbitmq import RabbitMQDriver
from brokers import Server
from tests.adapters.rabbitmq.support import (
    Bench,
    Proxy,
    bench_on,
    cut,
    eventually,
    numbers,
    store,
    take,
)

pytestmark = pytest.mark.rabbitmq


async def test_bodies_and_headers_arrive_as_they_were(bench: Bench, driver: RabbitMQDriver) -> None:
    sent = [
        bench.record(body, headers={"x-odd": "žluťoučký 😀 \t", "empty": ""}, content_type="a/b")
        for body in (b"", bytes(range(256)), b"x" * 1024 * 1024, b"y" * (131072 - 8))
    ]
    await store(driver, sent)
    for group in ("billing", None):
        source = await bench.join(driver, group, start="earliest")
        for record, received in zip(sent, await take(source, len(sent)), strict=True):
            assert received.body == record.body
            assert dict(received.headers).items() >= record.headers.items()
            assert received.content_type == "a/b"
            assert received.time is not None
            assert abs(received.time - time.time()) < 60


async def test_headers_by_which_the_server_would_route_are_only_headers(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    source = await bench.join(driver)
    await store(driver, [bench.record(headers={"CC": "a", "BCC": "b", "x-death": "c"})])
    (received,) = await take(source, 1)
    assert received.headers["CC"] == "a"
    assert received.headers["BCC"] == "b"


async def test_a_key_too_long_for_a_routing_key(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await store(driver, [bench.record(1, key="ž" * 500), bench.record(2, key="a.b.#")])
    assert numbers(await take(source, 2)) == [1, 2]


async def test_a_missing_exchange_fails_its_own_records_only(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    gone = f"{bench.name}-gone"
    await driver.declare(bench.topic(gone, create=False))
    records = [bench.record(1), bench.record(2, name=gone), bench.record(3)]
    outcomes = await driver.publish(records)
    errors = [
        translate(one, driver.errors, doing="", where="") if isinstance(one, Exception) else one
        for one in outcomes
    ]
    assert isinstance(errors[1], NotFound)
    # The channel is gone with it: what was not confirmed yet is to be repeated.
    assert all(one is None or isinstance(one, TransientError) for one in (errors[0], errors[2]))


async def test_an_exchange_of_others_without_a_queue_refuses(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    channel = await driver.native.channel()
    await channel.declare_exchange(bench.name + "-x", aio_pika.ExchangeType.TOPIC, durable=True)
    await driver.declare(bench.topic("mapped", native=bench.name + "-x", create=False))
    outcomes = await driver.publish([bench.record(name="mapped"), bench.record(1)])
    assert isinstance(outcomes[0], NotFound)
    assert "NO_ROUTE" in str(outcomes[0])
    assert outcomes[1] is None


async def test_a_deleted_topic_is_made_again(bench: Bench, driver: RabbitMQDriver) -> None:
    channel = await driver.native.channel()
    await channel.queue_delete(f"{bench.name}._log")
    (outcome,) = await driver.publish([bench.record(1)])
    assert isinstance(outcome, TransientError)
    await store(driver, [bench.record(2)])
    assert numbers(await take(await bench.join(driver), 1)) == [2]


async def test_a_message_over_the_servers_limit(bench: Bench, driver: RabbitMQDriver) -> None:
    records = [bench.record(1), bench.record(b"x" * (17 * 1024 * 1024))]
    large = (await driver.publish(records))[1]
    assert isinstance(large, Exception)
    assert type(translate(large, driver.errors, doing="", where="")) is MessageTooLarge
    await store(driver, [bench.record(2)])


async def test_publishing_goes_on_after_the_connection_broke(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    await store(driver, bench.records(10))
    cut(driver)
    await store(driver, bench.records(range(10, 20)))
    source = await bench.join(driver)
    assert numbers(await take(source, 20)) == list(range(20))


async def test_many_batches_at_once_get_their_own_outcomes(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    batches = [bench.records(range(start, start + 50)) for start in range(0, 500, 50)]
    for outcomes in await asyncio.gather(*(driver.publish(batch) for batch in batches)):
        assert outcomes == [None] * 50
    source = await bench.join(driver, prefetch=1000)
    assert sorted(numbers(await take(source, 500))) == list(range(500))


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_a_stopped_server_ends_a_publish_in_time(faulty: Server) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(confirm_timeout=1.0, request_timeout=1.0)
        await store(driver, [bench.record(1)])
        await asyncio.to_thread(faulty.pause)
        try:
            started = time.monotonic()
            (outcome,) = await driver.publish([bench.record(2)])
            assert isinstance(outcome, PublishTimeout)
            assert time.monotonic() - started < 10
        finally:
            await asyncio.to_thread(faulty.resume)
        await store(driver, [bench.record(3)])


async def test_an_alarm_throttles_and_does_not_stop_acknowledgements(bench: Bench) -> None:
    driver = await bench.open(confirm_timeout=0.5)
    source = await bench.join(driver)
    await store(driver, bench.records(3))
    received = await take(source, 3)
    async with Proxy(bench.url) as proxy:
        publisher = await bench.open(proxy.url, confirm_timeout=0.5)
        await store(publisher, [bench.record(3)])
        received += await take(source, 1)
        proxy.block()
        # What was on its way is undecided; what comes later is not even sent.
        (first,) = await publisher.publish([bench.record(4)])
        assert isinstance(first, PublishTimeout)
        with pytest.raises(Throttled, match="low"):
            await publisher.publish([bench.record(5)])
        proxy.unblock()
        await take(source, 1)
        await store(publisher, [bench.record(6)])
        assert numbers(await take(source, 1)) == [6]
        await publisher.aclose()


async def test_a_dead_link_is_given_up(bench: Bench) -> None:
    async with Proxy(bench.url) as proxy:
        driver = await bench.open(proxy.url, confirm_timeout=0.5, request_timeout=0.5)
        await store(driver, [bench.record(1)])
        proxy.stall()
        (outcome,) = await driver.publish([bench.record(2)])
        assert isinstance(outcome, PublishTimeout)
        with pytest.raises(ConnectionLost):
            await driver.ping()
        proxy.flow()
        await store(driver, [bench.record(3)])
        await driver.ping()
        started = time.monotonic()
        proxy.stall()
        await driver.aclose()
        assert time.monotonic() - started < 15


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_a_server_that_has_just_started_leaves_nothing_out_of_the_log(
    faulty: Server,
) -> None:
    async with bench_on(faulty.url) as bench:
        driver = await bench.open(settle_time=1.5)
        source = await bench.join(driver)
        await store(driver, [bench.record(0)])
        await take(source, 1)
        await asyncio.to_thread(faulty.kill)
        starting = asyncio.create_task(asyncio.to_thread(faulty.up))
        confirmed = 0
        errors: list[BaseException] = []

        async def publish() -> bool:
            nonlocal confirmed
            try:
                await store(driver, [bench.record(confirmed + 1)])
            except Exception as error:
                errors.append(translate(error, driver.errors, doing="", where=""))
            else:
                confirmed += 1
            return confirmed == 100

        await eventually(publish, seconds=60)
        await starting
        reader = await bench.join(driver, None, start="earliest")
        logged: set[int] = set()

        async def complete() -> bool:
            logged.update(numbers(await reader.receive(1000, 0.2)))
            return len(logged) == 101

        await eventually(complete)
        assert errors
        assert all(isinstance(error, TransientError) for error in errors)
