"""Connecting: hosts, virtual hosts, credentials, TLS settings, and coming back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from anymq.driver import REAL, SourceLost
from anymq.errors import AccessDenied, ConfigurationError, ConnectionLost, translate
from anymq.url import URL
from anymq_rabbitmq import RabbitMQDriver, RabbitMQOptions
from anymq_rabbitmq.options import tls_context, virtual_host
from tests.adapters.rabbitmq.support import Bench, Proxy, cut, eventually, numbers, store, take


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/orders", "orders"),
        ("amqp://h/a%2Fb", "a/b"),
    ],
)
def test_the_virtual_host(url: str, expected: str) -> None:
    assert virtual_host(URL.parse(url)) == expected


def test_bad_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"heartbeat": 0},
        {"confirm_timeout": 0.0},
        {"settle_time": -1.0},
        {"key_file": "x"},
    ]
    for values in bad:
        with pytest.raises(ConfigurationError):
            RabbitMQOptions(**values)
    with pytest.raises(ConfigurationError, match="amqps"):
        tls_context(URL.parse("amqp://h"), RabbitMQOptions(ca="x"))
    with pytest.raises(ConfigurationError, match="certificate"):
        tls_context(URL.parse("amqps://h"), RabbitMQOptions(ca="/no/such/file"))


def test_tls_verifies() -> None:
    context = tls_context(URL.parse("amqps://h"), RabbitMQOptions())
    assert context is not None
    assert context.check_hostname


async def open_error(url: str, timeout: float = 5) -> BaseException:
    started = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await RabbitMQDriver.open(URL.parse(url), RabbitMQOptions(), timeout=timeout, clock=REAL)
    assert time.monotonic() - started < timeout + 2
    assert len(asyncio.all_tasks()) == 1, "something is left running"
    return translate(caught.value, RabbitMQDriver.errors, doing="connecting", where="")


async def test_nobody_there() -> None:
    assert isinstance(await open_error("amqp://127.0.0.1:1"), ConnectionLost)


async def test_somebody_who_does_not_answer() -> None:
    writers: list[asyncio.StreamWriter] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await open_error(f"amqp://127.0.0.1:{port}", timeout=0.5)
        assert isinstance(error, ConnectionLost)
        for writer in writers:
            writer.transport.abort()


@pytest.mark.rabbitmq
async def test_wrong_credentials_and_virtual_hosts(rabbitmq_url: str) -> None:
    address = rabbitmq_url.rpartition("@")[2].rstrip("/")
    refused = await open_error(f"amqp://guest:hunter2@{address}")
    assert isinstance(refused, AccessDenied)
    assert "hunter2" not in str(refused)
    missing = await open_error(f"amqp://guest:guest@{address}/nowhere")
    assert isinstance(missing, AccessDenied)
    assert "nowhere" in str(missing)


@pytest.mark.rabbitmq
async def test_each_host_is_tried(bench: Bench) -> None:
    address = bench.url.rpartition("@")[2]
    driver = await bench.open(f"amqp://guest:guest@127.0.0.1:1,{address}")
    await store(driver, [bench.record(1)])
    cut(driver)
    await store(driver, [bench.record(2)])
    assert numbers(await take(await bench.join(driver), 2)) == [1, 2]


@pytest.mark.rabbitmq
async def test_silence_is_noticed_by_heartbeats(bench: Bench) -> None:
    async with Proxy(bench.url) as proxy:
        driver = await bench.open(proxy.url, heartbeat=1)
        source = await bench.join(driver)
        proxy.silence()

        async def lost() -> bool:
            try:
                await source.receive(1, 1)
            except SourceLost:
                return True
            return False

        await eventually(lost)


@pytest.mark.rabbitmq
async def test_a_busy_consumer_is_not_taken_for_dead(bench: Bench) -> None:
    driver, other = await bench.open(heartbeat=1), await bench.open()
    source = await bench.join(driver, None, start="latest")
    number = 0
    until = time.monotonic() + 5  # Longer than it takes to give up a silent connection.
    while time.monotonic() < until:
        await store(other, bench.records(range(number, number + 50)))
        number += 50
        await take(source, 50)
    assert driver._consuming.is_open()


@pytest.mark.rabbitmq
async def test_two_processes_declare_the_same(bench: Bench) -> None:
    drivers = [await bench.open(declare=False, retention=60.0 + n) for n in range(4)]
    await asyncio.gather(*(driver.declare(bench.topic()) for driver in drivers))
    await asyncio.gather(*(store(driver, bench.records(5)) for driver in drivers))
    assert len(await take(await bench.join(drivers[0]), 20)) == 20


@pytest.mark.rabbitmq
async def test_a_channel_that_is_closed_twice_costs_no_connection(bench: Bench) -> None:
    driver = await bench.open()
    for _ in range(20):
        channel = await driver._consuming.channel()
        await asyncio.gather(*(channel.close(10) for _ in range(3)))
        other = await driver._consuming.channel()
        assert other.is_open
        await other.close(10)
    assert driver._consuming.is_open()
