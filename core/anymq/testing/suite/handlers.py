"""Handlers and the shared middleware: retry, dead letters, idempotency, deadlines."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from ...app import App
from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...errors import Reject, RetryAfter
from ...ids import new_id
from ...message import Message
from ...middleware import Acknowledge, DeadLetter, Deadline, Idempotency, Retry
from ...wire import dead_letter_headers as why
from ...wire.cloudevents import encode
from ..harness import random_name
from ..tools import WAIT_SECONDS, silent, take, take_acked, until, worker
from .base import Base


class Order(BaseModel):
    number: int


class Handlers(Base):
    """A return acknowledges; an exception retries, and dead-letters in the end."""

    async def test_exhausted_retries_end_in_the_dead_letters_once(
        self, url: str, topic: str
    ) -> None:
        app = App(url)
        attempts: list[int] = []

        @app.subscriber(
            topic,
            group="g",
            retry=Retry(attempts=4, initial=0.4, factor=1.0, jitter=False, in_place=0.1),
        )
        async def fail(order: Order, delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            raise ValueError("cannot\tdo it")

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.publish(topic, Order(number=1))
            (letter,) = await take_acked(letters, 1)
            await silent(letters, 0.5)
        assert attempts == [1, 2, 3, 4]
        headers = letter.message.headers
        assert headers[why.ATTEMPTS] == "4"
        assert headers[why.ERROR_TYPE] == "builtins.ValueError"
        assert headers[why.ERROR_MESSAGE] == "cannot do it"
        assert "retries exhausted after 4 attempts" in headers[why.REASON]

    async def test_short_backoffs_are_retried_in_process_and_counted(
        self, url: str, topic: str
    ) -> None:
        app = App(url)
        attempts: list[int] = []

        @app.subscriber(
            topic, group="g", retry=Retry(attempts=5, initial=0.01, in_place=1, jitter=False)
        )
        async def fail_twice(delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if delivery.attempt == 3:
                raise RetryAfter(0.2)
            if delivery.attempt < 5:
                raise ValueError("not yet")

        async with app:
            await app.publish(topic, "x")
            await until(lambda: len(attempts) == 5)
        assert attempts == [1, 2, 3, 4, 5]

    async def test_a_body_that_does_not_validate_is_rejected_unretried(
        self, url: str, topic: str
    ) -> None:
        app = App(url)
        got: list[Order] = []

        @app.subscriber(topic, group="g", retry=Retry(attempts=5))
        async def handle(order: Order) -> None:
            got.append(order)

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.publish(topic, {"number": "secret-value"})
            await app.publish(topic, b"\xff\xfe")
            await app.publish(topic, Order(number=2))
            received = await take_acked(letters, 2)
            await until(lambda: got == [Order(number=2)])
        for letter in received:
            reason = letter.message.headers[why.REASON]
            assert reason.startswith("invalid payload")
            assert "secret-value" not in reason
            assert letter.message.headers[why.ATTEMPTS] == "1"

    async def test_reject_and_give_up_are_final(self, url: str, topic: str) -> None:
        app = App(url)
        calls: list[str] = []

        @app.subscriber(topic, group="g", retry=Retry(attempts=5, give_up_on=(KeyError,)))
        async def handle(body: str) -> None:
            calls.append(body)
            if body == "reject":
                raise Reject("no thanks")
            raise KeyError(body)

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.publish(topic, "reject")
            await app.publish(topic, "give up")
            reasons = {
                letter.message.body.decode(): letter.message.headers[why.REASON]
                for letter in await take_acked(letters, 2)
            }
        assert sorted(calls) == ["give up", "reject"]
        assert reasons["reject"] == "no thanks"
        assert "KeyError" in reasons["give up"]

    async def test_the_dead_letter_topic_can_be_chosen(self, url: str, topic: str) -> None:
        app = App(url)
        graveyard = random_name("graveyard")

        @app.subscriber(topic, group="g", dead_letter=DeadLetter(graveyard))
        async def handle(body: str) -> None:
            raise Reject("gone")

        async with app, app.broker.subscribe(graveyard, group="ops") as letters:
            await app.publish(topic, "x")
            (letter,) = await take_acked(letters, 1)
        assert letter.message.headers[why.TOPIC] == topic

    async def test_idempotency_applies_duplicates_once(self, url: str, topic: str) -> None:
        app = App(url)
        effects: list[str] = []
        skipped: list[Delivery] = []
        failed: set[str] = set()

        @app.subscriber(
            topic,
            group="g",
            concurrency=3,
            retry=Retry(attempts=5, initial=0.3, jitter=False),
            idempotency=Idempotency("memory://", on_duplicate=skipped.append),
        )
        async def handle(body: str) -> None:
            await asyncio.sleep(0.05)
            if body == "fails first" and body not in failed:
                failed.add(body)
                raise ValueError("once")
            effects.append(body)

        async with app:
            for body in ("plain", "fails first"):
                for _ in range(3):
                    await self._publish_copy(app.broker, topic, body)
            await until(lambda: len(skipped) >= 4)
        assert sorted(effects) == ["fails first", "plain"]

    async def test_duplicates_in_a_stream_that_members_share_have_one_effect(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        store = f"memory://{random_name()}"
        effects: Counter[str] = Counter()
        ids = [str(number) for number in range(150)]

        def member() -> App:
            app = App(url)

            @app.subscriber(topic, group="g", idempotency=Idempotency(store))
            async def handle(body: str) -> None:
                effects[body] += 1

            return app

        async with member():
            await broker.publish(topic, "first")
        await self._publish_copy(broker, topic, *ids, *ids)
        async with member(), member():
            await until(lambda: len(effects) >= 75)
        async with member():
            await self._publish_copy(broker, topic, "last")
            await until(lambda: len(effects) == 152)
        assert set(effects.values()) == {1}

    async def _publish_copy(self, broker: Broker, topic: str, *bodies: str) -> None:
        """Publish messages with these ids, bypassing the broker's own deduplication."""
        records = [
            encode(
                Message(id=body, topic=topic, body=body.encode(), source="anymq"),
                broker.driver.binding,
                unique=new_id(),
            )
            for body in bodies
        ]
        for outcome in await broker.driver.publish(records):
            assert not isinstance(outcome, BaseException), outcome

    async def test_a_crash_between_effect_and_ack_has_one_effect(
        self, killed_url: str, broker: Broker, topic: str, tmp_path: Path
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        file = tmp_path / "effects"
        arguments = {
            "url": killed_url,
            "topic": topic,
            "group": "g",
            "store": f"sqlite:///{tmp_path}/seen.db",
            "file": str(file),
        }
        await broker.publish(topic, "effect")
        async with worker("effect", **arguments, die=True) as first:
            await first.hear("handled")
            await first.process.wait()
        async with worker("effect", **arguments, die=False) as second:
            await second.hear("handled", within=2 * WAIT_SECONDS)
        assert file.read_text() == "effect\n"

    async def test_a_handler_over_its_deadline_is_retried(self, url: str, topic: str) -> None:
        app = App(url)
        attempts: list[int] = []

        @app.subscriber(
            topic,
            group="g",
            deadline=Deadline(0.2),
            retry=Retry(attempts=3, initial=0.01, in_place=1),
        )
        async def handle(delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if delivery.attempt == 1:
                await asyncio.sleep(60)

        async with app:
            await app.publish(topic, "x")
            await until(lambda: attempts == [1, 2])

    async def test_acknowledge_can_be_on_receipt_or_manual(self, url: str, topic: str) -> None:
        app = App(url)
        calls: list[str] = []

        @app.subscriber(
            topic, group="receipt", acknowledge=Acknowledge("receipt"), dead_letter=None, retry=None
        )
        async def once(delivery: Delivery) -> None:
            calls.append("receipt")
            raise ValueError("lost, because it was acked on receipt")

        @app.subscriber(topic, group="manual", acknowledge=Acknowledge("manual"))
        async def by_hand(delivery: Delivery) -> None:
            calls.append(f"manual {delivery.attempt}")
            if delivery.attempt == 1:
                await delivery.nack(0.1)
            else:
                await delivery.ack()

        async with app:
            await app.publish(topic, "x")
            await until(lambda: len(calls) == 3)
        assert sorted(calls) == ["manual 1", "manual 2", "receipt"]
        async with (
            connect(url) as broker,
            broker.subscribe(topic, group="receipt") as first,
            broker.subscribe(topic, group="manual") as second,
        ):
            await silent(first, 0.5)
            await silent(second, 0.1)

    async def test_at_most_concurrency_handlers_run(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        running = most = done = 0

        async def handle(body: str) -> None:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
            done += 1

        async with broker.subscribe(topic, group="g", handler=handle, concurrency=3):
            await broker.publish_many(topic, [str(n) for n in range(30)])
            await until(lambda: done == 30)
        assert most == 3

    async def test_a_slow_handler_holds_at_most_prefetch_messages(
        self, broker: Broker, topic: str
    ) -> None:
        go = asyncio.Event()
        done = 0

        async def handle(body: str) -> None:
            nonlocal done
            await go.wait()
            done += 1

        await broker.publish_many(topic, [f"{n}" for n in range(400)])
        async with broker.subscribe(
            topic, group="g", handler=handle, concurrency=2, prefetch=10
        ) as subscription:
            await until(lambda: subscription.in_flight == 10)
            for _ in range(20):
                await asyncio.sleep(0.02)
                assert subscription.in_flight <= 10
            go.set()
            await until(lambda: done == 400)

    async def test_a_cancelled_handler_is_released(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        started = asyncio.Event()

        async def handle(body: str) -> None:
            started.set()
            await asyncio.Event().wait()

        await broker.publish(topic, "x")
        subscription = broker.subscribe(topic, group="g", handler=handle, drain_timeout=0.1)
        async with subscription:
            await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        async with broker.subscribe(topic, group="g") as deliveries:
            (again,) = await take(deliveries, 1)
            assert again.attempt == 1, "released: not acked, not counted"
            await again.ack()

    async def test_draining_lets_handlers_finish(self, broker: Broker, topic: str) -> None:
        started, finished = asyncio.Event(), []

        async def handle(body: str) -> None:
            started.set()
            await asyncio.sleep(0.5)
            finished.append(body)

        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g", handler=handle):
            await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        assert finished == ["x"]
        async with broker.subscribe(topic, group="g") as deliveries:
            await silent(deliveries, 0.5)
