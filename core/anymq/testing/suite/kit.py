"""`TestBroker` on real brokers: a test of an application has the same result on each."""

from __future__ import annotations

import asyncio

import pytest

from ...app import App
from ...consuming.delivery import Delivery
from ...errors import NotFound
from ...middleware import Retry
from ...topic import Topic
from ..app import TestBroker
from .base import Base
from .needs import needs


@needs("admin")
class Kit(Base):
    """The methods of `TestBroker`: drain, published, dead_letters."""

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
            await broker.drain(timeout=60)
            assert attempts[:1] == [1]
            assert sorted(message.body for message in broker.published(bills)) == [b"100", b"200"]
            assert [message.body for message in broker.published(topic)][:3] == [b"1", b"2", b"3"]
            assert broker.dead_letters(bills, group="mail") == []
            async with asyncio.timeout(60):
                while not broker.dead_letters(orders, group="billing"):
                    await broker.advance(0.5)
            assert attempts == [1, 2]
            (letter,) = broker.dead_letters(orders, group="billing")
            assert "no bank today" in letter.headers["anymq-dlq-reason"]
            for slip in (f"{topic}.bils", f"{topic}.billing.dql"):
                with pytest.raises(NotFound, match="there is no topic"):
                    broker.published(slip)
            with pytest.raises(NotFound, match="for the group 'biling'"):
                broker.dead_letters(orders, group="biling")
