"""`TestBroker` on real brokers: a test of an application has the same result on each."""

from __future__ import annotations

import asyncio

import pytest

from ...app import App
from ...broker import Broker
from ...consuming.delivery import Delivery
from ...errors import NotFound
from ...middleware import Idempotency, Retry
from ...topic import Topic
from ..app import TestBroker
from .base import Base
from .needs import needs

WITHIN = 60.0
"""Seconds in which a loaded machine drains a few messages."""


@needs("admin")
class Kit(Base):
    """The methods of `TestBroker`, with the URL of this backend."""

    @pytest.mark.usefixtures("broker")
    async def test_an_application_is_tested_on_a_real_broker(self, url: str, topic: str) -> None:
        app = App()
        orders, bills = Topic[int](topic, int), Topic[int](f"{topic}.bills", int)
        attempts: list[int] = []

        @app.subscriber(orders, group="billing", retry=Retry(attempts=2, initial=1.5, jitter=False))
        async def bill(order: int, delivery: Delivery) -> None:
            if order == 3:
                attempts.append(delivery.attempt)
                raise RuntimeError("no bank today")
            await app.publish(bills, order * 100)

        @app.subscriber(bills, group="mail", concurrency=2)
        async def mail(bill: int) -> None:
            """Accept the message."""

        async with TestBroker(app, url=url) as broker:
            for number in (1, 2, 3):
                await broker.publish(orders, number)
            with pytest.raises(RuntimeError, match="no bank today"):
                await broker.drain(timeout=WITHIN)
            broker.expect_errors(RuntimeError)
            assert attempts[:1] == [1]
            assert sorted(message.body for message in broker.published(bills)) == [b"100", b"200"]
            assert [message.body for message in broker.published(topic)][:3] == [b"1", b"2", b"3"]
            assert sorted(broker.handled(mail)) == [100, 200]
            assert broker.dead_letters(bills) == []
            await broker.advance(1.5, timeout=WITHIN)
            assert attempts == [1, 2]
            (letter,) = broker.dead_letters(orders, group="billing")
            assert "no bank today" in str(letter.reason)
            assert [item.outcome for item in broker.deliveries(orders, id=letter.message.id)] == [
                "nack",
                "reject",
            ]
            for slip in (f"{topic}.bils", f"{topic}.billing.dql"):
                with pytest.raises(NotFound, match="there is no topic"):
                    broker.published(slip)
            with pytest.raises(NotFound, match="for the group 'biling'"):
                broker.dead_letters(orders, group="biling")

    @pytest.mark.usefixtures("broker")
    async def test_failures_and_duplicates_are_injected(self, url: str, topic: str) -> None:
        app = App()
        effects: list[str] = []

        @app.subscriber(topic, group="naive", retry=Retry(attempts=2, initial=0.1))
        async def naive(name: str) -> None:
            effects.append(name)

        @app.subscriber(topic, group="careful", idempotency=Idempotency("sqlite:////none/at.all"))
        async def careful(name: str) -> None:
            effects.append(name.upper())

        async with TestBroker(app, url=url) as broker:
            broker.fail_next(naive, ConnectionError("cut"), times=2)
            await broker.publish(topic, "a", id="a")
            await broker.drain(timeout=WITHIN)
            assert effects == ["A"]
            (letter,) = broker.dead_letters(topic)
            assert (letter.group, letter.attempts) == ("naive", 2)
            assert letter.error_type == "builtins.ConnectionError"

            broker.duplicate_all()
            await broker.publish(topic, "b", id="b")
            await broker.drain(timeout=WITHIN)
            assert sorted(effects) == ["A", "B", "b", "b"]
            for group in ("naive", "careful"):
                found = broker.deliveries(topic, id="b", group=group)
                assert [(item.duplicate, item.outcome) for item in found] == [
                    (False, "ack"),
                    (True, "ack"),
                ]
            assert [message.id for message in broker.published(topic)] == ["a", "b"]

    async def test_tests_on_one_broker_do_not_meet(
        self, url: str, topic: str, broker: Broker
    ) -> None:
        async def place(order: str) -> list[bytes]:
            app = App()

            @app.subscriber(topic, group="billing", ordered=True)
            async def bill(order: str) -> None:
                await app.publish(f"{topic}.bills", order)

            @app.subscriber(topic, group=None)
            async def show(order: str) -> None:
                """Accept the message."""

            async with TestBroker(app, url=url) as test:
                await test.publish(topic, order, key=order)
                await test.drain(timeout=WITHIN)
                assert test.handled(bill) == [order]
                return [message.body for message in test.published(f"{topic}.bills")]

        bills = await asyncio.gather(place("one"), place("two"))
        assert list(bills) == [[b"one"], [b"two"]]
        assert [name for name in await broker.admin.topics() if topic in name] == []
