"""Batch handlers: how batches fill, and the outcome of each message."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import BaseModel

from ...app import App
from ...broker import Broker
from ...consuming.batch import Batch, BatchError
from ...consuming.delivery import Delivery
from ...errors import ConfigurationError, Reject, RetryAfter
from ...middleware import Acknowledge, Deadline, Handler, Middleware, Retry
from ...wire import dead_letter_headers as why
from ..tools import WAIT_SECONDS, silent, take, take_acked, until
from .base import Base

UNUSED_WAIT = 60.0
"""Seconds that a batch would wait to fill, in tests where it runs for another reason."""


class Item(BaseModel):
    number: int


def noting(here: list[Delivery]) -> Middleware:
    """Return a middleware that adds each delivery to `here`."""

    def note(handler: Handler) -> Handler:
        async def noted(delivery: Delivery) -> None:
            here.append(delivery)
            await handler(delivery)

        return noted

    return note


class Batches(Base):
    """The contract of `batch=Batch(…)`."""

    async def test_a_full_batch_runs_and_the_rest_after_its_wait(
        self, broker: Broker, topic: str
    ) -> None:
        batches: list[list[int]] = []

        async def handle(items: list[Item], deliveries: list[Delivery]) -> None:
            assert [Item.model_validate_json(d.message.body) for d in deliveries] == items
            batches.append([item.number for item in items])

        await broker.publish_many(topic, [Item(number=n) for n in range(25)])
        async with broker.subscribe(
            topic, group="g", handler=handle, batch=Batch(size=10, wait=2)
        ) as subscription:
            await until(lambda: sum(map(len, batches)) == 25)
            await until(lambda: subscription.in_flight == 0)
        assert max(map(len, batches)) == 10
        assert Counter(number for batch in batches for number in batch) == Counter(range(25))
        async with broker.subscribe(topic, group="g") as deliveries:
            await silent(deliveries, 0.5)

    async def test_at_most_concurrency_batches_run_at_a_time(
        self, broker: Broker, topic: str
    ) -> None:
        running = most = done = 0

        async def handle(bodies: list[str]) -> None:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1
            done += len(bodies)

        await broker.publish_many(topic, [str(n) for n in range(40)])
        async with broker.subscribe(
            topic, group="g", handler=handle, concurrency=2, batch=Batch(size=5, wait=0.01)
        ):
            await until(lambda: done == 40)
        assert most == 2

    async def test_a_failed_message_of_a_batch_fails_alone(self, url: str, topic: str) -> None:
        app = App(url)
        attempts: Counter[str] = Counter()
        done: list[str] = []

        @app.subscriber(
            topic,
            group="g",
            batch=Batch(size=6, wait=0.3),
            retry=Retry(attempts=3, initial=0.01, jitter=False, in_place=0),
        )
        async def handle(bodies: list[str], deliveries: list[Delivery]) -> None:
            errors: dict[Delivery | int, Exception] = {}
            for index, (body, delivery) in enumerate(zip(bodies, deliveries, strict=True)):
                attempts[body] += 1
                if body == "never":
                    errors[delivery] = ValueError("no")
                elif body == "refused":
                    errors[index] = Reject("not this one")
                elif body == "later" and delivery.attempt == 1:
                    errors[index] = RetryAfter(0.1)
                else:
                    done.append(body)
            if errors:
                raise BatchError(errors)

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.broker.publish_many(topic, ["a", "never", "b", "refused", "later", "c"])
            reasons = {
                letter.message.body.decode(): letter.message.headers[why.REASON]
                for letter in await take_acked(letters, 2)
            }
            await until(lambda: len(done) == 4)
        assert sorted(done) == ["a", "b", "c", "later"]
        assert attempts == Counter({"a": 1, "b": 1, "c": 1, "refused": 1, "later": 2, "never": 3})
        assert reasons["refused"] == "not this one"
        assert "retries exhausted after 3 attempts" in reasons["never"]

    async def test_a_batch_that_raises_fails_all_but_the_messages_it_settled(
        self, url: str, topic: str
    ) -> None:
        app = App(url)
        seen: list[tuple[str, int]] = []

        @app.subscriber(
            topic,
            group="g",
            batch=Batch(size=3, wait=0.3),
            retry=Retry(attempts=2, initial=0.01, jitter=False, in_place=0),
        )
        async def handle(deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                body = delivery.message.body.decode()
                seen.append((body, delivery.attempt))
                if body == "by hand" and delivery.attempt == 1:
                    await delivery.nack(0.1)
                elif body == "good":
                    await delivery.ack()
            if any(delivery.attempt == 1 for delivery in deliveries):
                raise ValueError("all the others")

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.broker.publish_many(topic, ["good", "by hand", "bad"])
            await until(lambda: len(seen) >= 5)
            await silent(letters, 0.5)
        assert sorted(seen) == [("bad", 1), ("bad", 2), ("by hand", 1), ("by hand", 2), ("good", 1)]

    async def test_an_invalid_body_joins_no_batch(self, url: str, topic: str) -> None:
        app = App(url)
        batches: list[list[int]] = []

        @app.subscriber(topic, group="g", batch=Batch(size=3, wait=5))
        async def handle(items: list[Item]) -> None:
            batches.append([item.number for item in items])

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            payloads = [Item(number=1), {"number": "x"}, Item(number=2), b"\xff", Item(number=3)]
            await app.broker.publish_many(topic, payloads)
            for letter in await take_acked(letters, 2):
                reason = letter.message.headers[why.REASON]
                assert reason.startswith("invalid payload")
            await until(lambda: batches)
        assert sorted(batches[0]) == [1, 2, 3]

    async def test_an_incomplete_batch_does_not_hold_up_a_drain(
        self, broker: Broker, topic: str
    ) -> None:
        done: list[str] = []
        here: list[Delivery] = []

        async def handle(bodies: list[str]) -> None:
            done.extend(bodies)

        async with broker.subscribe(
            topic,
            group="g",
            handler=handle,
            batch=Batch(size=10, wait=UNUSED_WAIT),
            middleware=[Acknowledge(), noting(here)],
        ):
            await broker.publish_many(topic, ["a", "b", "c"])
            await until(lambda: len(here) == 3)
        assert sorted(done) == ["a", "b", "c"]
        async with broker.subscribe(topic, group="g") as deliveries:
            await silent(deliveries, 0.5)

    async def test_an_incomplete_batch_does_not_wait_while_paused(
        self, broker: Broker, topic: str
    ) -> None:
        done: list[str] = []
        here: list[Delivery] = []

        async def handle(bodies: list[str]) -> None:
            done.extend(bodies)

        async with broker.subscribe(
            topic,
            group="g",
            handler=handle,
            batch=Batch(size=10, wait=UNUSED_WAIT),
            middleware=[Acknowledge(), noting(here)],
        ) as subscription:
            await broker.publish(topic, "a")
            await until(lambda: here)
            subscription.pause()
            await until(lambda: done == ["a"])

    async def test_a_cancelled_batch_is_released_as_a_whole(
        self, broker: Broker, topic: str
    ) -> None:
        started = asyncio.Event()
        ended: list[str] = []

        async def handle(bodies: list[str]) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("once")

        await broker.publish_many(topic, ["a", "b", "c"])
        async with broker.subscribe(
            topic, group="g", handler=handle, batch=Batch(size=3), drain_timeout=0.1
        ):
            await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        assert ended == ["once"]
        async with broker.subscribe(topic, group="g") as deliveries:
            for again in await take(deliveries, 3):
                assert again.attempt == 1
                await again.ack()

    async def test_a_batch_over_its_deadline_fails_once(self, url: str, topic: str) -> None:
        app = App(url)
        attempts: list[list[int]] = []

        @app.subscriber(
            topic,
            group="g",
            batch=Batch(size=3, wait=0.5),
            deadline=Deadline(1.5),
            retry=Retry(attempts=3, initial=0.01, jitter=False, in_place=0),
        )
        async def handle(deliveries: list[Delivery]) -> None:
            attempts.append([delivery.attempt for delivery in deliveries])
            if deliveries[0].attempt == 1:
                await asyncio.Event().wait()

        async with app:
            await app.broker.publish_many(topic, ["a", "b", "c"])
            await until(lambda: sum(2 in batch for batch in attempts))
            await until(lambda: sum(map(len, attempts)) == 6)
        assert sorted(number for batch in attempts for number in batch) == [1, 1, 1, 2, 2, 2]

    async def test_a_list_parameter_needs_a_batch_and_a_batch_needs_a_list(
        self, broker: Broker, topic: str
    ) -> None:
        async def lists(items: list[Item]) -> None: ...

        async def one(item: Item) -> None: ...

        async def mixed(items: list[Item], delivery: Delivery) -> None: ...

        async def nothing() -> None: ...

        with pytest.raises(ConfigurationError, match="pass batch=Batch"):
            broker.subscribe(topic, group="g", handler=lists)
        for bad in (one, mixed):
            with pytest.raises(ConfigurationError, match="must be a list"):
                broker.subscribe(topic, group="g", handler=bad, batch=Batch())
        with pytest.raises(ConfigurationError, match="takes no list"):
            broker.subscribe(topic, group="g", handler=nothing, batch=Batch())
        for size, wait in ((0, 1.0), (1, -1.0)):
            with pytest.raises(ConfigurationError, match="Batch"):
                Batch(size=size, wait=wait)
