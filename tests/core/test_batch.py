"""`Batch` on a virtual clock, and messages that leave their batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from anymq import (
    App,
    Batch,
    BatchError,
    ConfigurationError,
    Deadline,
    Delivery,
    Handler,
    Message,
    Retry,
    Topic,
    connect,
)
from anymq.testing import TestBroker
from anymq.testing.tools import until


async def test_draining_leaves_a_batch_that_waits_for_time_to_pass() -> None:
    app = App()
    batches: list[list[str]] = []

    @app.subscriber("t", group="g", batch=Batch(size=10, wait=3600))
    async def handle(bodies: list[str]) -> None:
        batches.append(bodies)

    async with TestBroker(app) as broker:
        for body in "abc":
            await broker.publish("t", body)
        await broker.drain(timeout=5)
        assert batches == []
        await broker.advance(3601)
        assert batches == [["a", "b", "c"]]
        for body in "0123456789":
            await broker.publish("t", body)
        await broker.drain(timeout=5)
        assert len(batches) == 2, "full: at once"


async def test_messages_that_wait_for_a_slot_join_one_batch() -> None:
    app = App("memory://")
    batches: list[list[str]] = []
    go = asyncio.Event()

    @app.subscriber("t", group="g", batch=Batch(size=4, wait=0.05))
    async def handle(bodies: list[str]) -> None:
        batches.append(bodies)
        await go.wait()

    async with app:
        await app.publish("t", "first")
        await until(lambda: batches == [["first"]])
        (subscription,) = app.subscriptions
        for body in "abc":
            await app.publish("t", body)
        await until(lambda: subscription.in_flight == 4)
        await asyncio.sleep(0.2)
        assert len(batches) == 1, "one at a time"
        go.set()
        await until(lambda: len(batches) == 2)
    assert sorted(batches[1]) == ["a", "b", "c"]


@pytest.mark.parametrize("key", [-1, 3, "stranger"])
async def test_an_error_that_names_another_delivery_fails_the_whole_batch(key: object) -> None:
    app = App()
    attempts: list[int] = []

    @app.subscriber("t", group="g", batch=Batch(size=3), retry=Retry(attempts=2, in_place=1))
    async def handle(deliveries: list[Delivery]) -> None:
        attempts.extend(delivery.attempt for delivery in deliveries)
        raise BatchError({key: ValueError("who?")})  # type: ignore[dict-item]

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", ["a", "b", "c"])
        await broker.advance(10)
        assert sorted(attempts) == [1, 1, 1, 2, 2, 2]
        letters = broker.dead_letters("t", group="g")
    assert len(letters) == 3
    for letter in letters:
        assert "not in the batch" in str(letter.reason)


async def test_a_batch_has_no_causation_id_but_its_messages_have() -> None:
    app = App("memory://")
    published: list[Message] = []

    @app.subscriber("t", group="g", batch=Batch(size=2))
    async def handle(messages: list[Message]) -> None:
        assert [message.body for message in messages] == [b"a", b"b"]
        await app.publish("sum", "ab")

    @app.subscriber("sum", group="g")
    async def note(message: Message) -> None:
        published.append(message)

    async with app:
        await app.broker.publish_many("t", ["a", "b"])
        await until(lambda: published)
    assert published[0].causation_id is None
    assert published[0].correlation_id is None


async def test_a_message_over_its_deadline_ends_the_batch() -> None:
    app = App("memory://")
    outcomes: list[str] = []
    short: Iterator[bool] = iter([True, False])

    def impatient(handler: Handler) -> Handler:
        """The first message has a short deadline."""
        quick = Deadline(0.2)(handler)

        async def choose(delivery: Delivery) -> None:
            try:
                await (quick if next(short, False) else handler)(delivery)
            except TimeoutError as error:
                outcomes.append(str(error))

        return choose

    @app.subscriber("t", group="g", batch=Batch(size=2), middleware=[impatient], retry=None)
    async def handle(bodies: list[str]) -> None:
        await asyncio.Event().wait()

    async with app:
        await app.broker.publish_many("t", ["a", "b"])
        await until(lambda: len(outcomes) == 2)
    assert sorted(outcomes) == [
        "the batch was ended: one of its messages exceeded its deadline",
        "the handler took over 0.2 s",
    ]


async def test_a_message_that_timed_out_before_its_batch_runs_is_not_in_it() -> None:
    app = App("memory://")
    batches: list[list[str]] = []
    left: list[str] = []

    def hasty(handler: Handler) -> Handler:
        quick = Deadline(0.1)(handler)

        async def choose(delivery: Delivery) -> None:
            body = delivery.message.body.decode()
            try:
                await (quick if body == "hasty" else handler)(delivery)
            except TimeoutError:
                left.append(body)

        return choose

    @app.subscriber("t", group="g", batch=Batch(size=3, wait=0.6), middleware=[hasty], retry=None)
    async def handle(bodies: list[str]) -> None:
        batches.append(bodies)

    async with app:
        await app.broker.publish_many("t", ["hasty", "b", "c"][:2])
        await until(lambda: left == ["hasty"])
        await until(lambda: batches)
    assert batches == [["b"]]


async def test_a_list_may_be_the_body_of_one_message() -> None:
    async with connect("memory://") as broker:
        topic = Topic[list[int]]("t", list[int])
        got: list[object] = []

        async def one(numbers: list[int]) -> None:
            got.append(numbers)

        async def many(numbers: list[list[int]]) -> None:
            got.append(numbers)

        async with (
            broker.subscribe(topic, group="one", handler=one),
            broker.subscribe(topic, group="many", handler=many, batch=Batch(size=2)),
        ):
            await broker.publish_many(topic, [[1], [2, 3]])
            await until(lambda: len(got) == 3)
    assert [1] in got
    assert [[1], [2, 3]] in got


async def test_a_batch_needs_a_handler() -> None:
    async with connect("memory://") as broker:
        with pytest.raises(ConfigurationError, match="needs a handler"):
            broker.subscribe("t", group="g", batch=Batch())
