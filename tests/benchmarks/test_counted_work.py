"""The cost of a message, counted rather than timed; it may fall but not rise.

A count above its ceiling is a regression, or a justified change that is explained here. Lower the
ceiling when the code improves.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from types import FrameType

import pytest

import anymq
from anymq import App
from anymq.consuming import workers
from anymq.driver import Binding
from anymq.publishing import publisher
from anymq_kafka import KafkaDriver
from anymq_nats import NatsDriver
from anymq_rabbitmq import RabbitMQDriver
from anymq_redis import RedisDriver
from benchmarks.speed.payload import Bodies
from tests.benchmarks.counting_driver import SCHEME, CountingDriver, serve

N = 2000
BODY = Bodies(0, 256).item(0).body

PUBLISH_CALLS = 4
"""Driver calls for `N` concurrent publishes."""
RECEIVE_CALLS, ACK_CALLS = 16, 13
"""Driver calls to consume `N` messages; a worker yields after each 250."""
FUNCTIONS_TO_PUBLISH, FUNCTIONS_TO_CONSUME = 78.5, 22.0
"""Calls of Python and C functions per message, including those of the memory driver. About forty of
the calls to publish belong to the event loop, for a task that publishes one message."""
BLOCKS_IN_FLIGHT = 2.5
"""Memory blocks of a message in flight, from fetch to settlement."""
FUNCTIONS_TO_PUBLISH_MANY = 12.5
"""Function calls per message of `publish_many`, which needs no task or future per message."""
BLOCKS_KEPT = 0.1
"""Memory blocks kept per settled message."""
ENVELOPE = {"kafka": 155, "rabbitmq": 192, "nats": 180, "redis": 174}
"""Bytes of all header names and values of a binary message with a key. The names of the CloudEvents
binding for AMQP are the longest."""


class Calls:
    """Counts the calls of Python and C functions within its context.

    The garbage collector is disabled there, because its callbacks and finalizers would be counted.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        gc.collect()
        gc.disable()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppress work that depends on time: sweeps, yields, and random bits of new ids."""
    serve()
    monkeypatch.setattr(publisher, "EXPIRY_SECONDS", 60.0)
    monkeypatch.setattr(workers, "YIELD_SECONDS", 60.0)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)


def consuming(url: str, count: int) -> tuple[App, asyncio.Event]:
    """Return an app with the default chain, and an event set after `count` messages."""
    app, done = App(url), asyncio.Event()
    left = iter(range(count - 1))

    @app.subscriber("orders", group="billing")
    async def handle(body: bytes) -> None:
        if next(left, None) is None:
            done.set()

    return app, done


async def publish_one_by_one(broker: anymq.Broker, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(broker.publish("orders", BODY))


async def test_concurrent_publishes_become_few_driver_calls() -> None:
    async with anymq.connect(f"{SCHEME}://publishes") as broker:
        await publish_one_by_one(broker, N)
    assert len(CountingDriver.records) == N
    assert CountingDriver.calls["publish"] <= PUBLISH_CALLS


async def test_messages_are_fetched_and_settled_in_batches() -> None:
    url = f"{SCHEME}://settled"
    async with anymq.connect(url) as broker:
        await broker.publish_many("orders", [BODY] * N)
        app, done = consuming(url, N)
        async with app:
            await done.wait()
    assert CountingDriver.calls["receive"] <= RECEIVE_CALLS
    assert CountingDriver.calls["ack"] <= ACK_CALLS
    assert set(CountingDriver.calls) <= {"publish", "receive", "ack"}


async def test_function_calls_to_publish() -> None:
    async with anymq.connect("memory://calls-to-publish") as broker:
        await publish_one_by_one(broker, 100)
        with Calls() as calls:
            await publish_one_by_one(broker, N)
    assert calls.count / N <= FUNCTIONS_TO_PUBLISH


async def test_function_calls_to_publish_many() -> None:
    async with anymq.connect("memory://calls-to-publish-many") as broker:
        await broker.publish_many("orders", [BODY] * 100)
        with Calls() as calls:
            await broker.publish_many("orders", [BODY] * N)
    assert calls.count / N <= FUNCTIONS_TO_PUBLISH_MANY


async def test_function_calls_to_consume() -> None:
    url = "memory://calls-to-consume"
    async with anymq.connect(url) as broker:
        await broker.publish_many("orders", [BODY] * N)
        app, done = consuming(url, N)
        async with app:
            with Calls() as calls:
                await done.wait()
    assert calls.count / N <= FUNCTIONS_TO_CONSUME


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


async def test_memory_of_a_message_in_flight() -> None:
    url = "memory://in-flight"
    async with anymq.connect(url) as broker:
        await broker.publish_many("orders", [BODY] * N)
        before = blocks()
        async with broker.subscribe("orders", group="billing", prefetch=N) as deliveries:
            held = [await anext(deliveries) for _ in range(N)]
            taken = blocks() - before
            while held:
                await held.pop().ack()
    assert taken / N <= BLOCKS_IN_FLIGHT


async def test_memory_of_a_settled_message() -> None:
    url = "memory://done"
    after: list[int] = []
    async with anymq.connect(url) as broker:
        for _ in range(3):
            await broker.publish_many("orders", [BODY] * N)
            app, done = consuming(url, N)
            async with app:
                await done.wait()
            await broker.admin.purge("orders")
            after.append(blocks())
    assert (after[-1] - after[-2]) / N <= BLOCKS_KEPT


@pytest.mark.parametrize(
    ("name", "binding"),
    [
        ("kafka", KafkaDriver.binding),
        ("rabbitmq", RabbitMQDriver.binding),
        ("nats", NatsDriver.binding),
        ("redis", RedisDriver.binding),
    ],
)
async def test_bytes_of_the_envelope(
    name: str, binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountingDriver, "binding", binding)
    async with anymq.connect(f"{SCHEME}://envelope") as broker:
        await broker.publish("orders", BODY, key="k-17")
    (record,) = CountingDriver.records
    size = sum(len(key) + len(value) for key, value in record.headers.items())
    assert size <= ENVELOPE[name]
