"""What handlers return: published before the message is acknowledged, or the reply to a request."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from ...app import App
from ...broker import Broker
from ...consuming.delivery import Delivery
from ...errors import PublishTimeout
from ...message import Message, Receipt
from ...middleware import Idempotency, Publish, Retry
from ...router import Router
from ...topic import Topic
from ..tools import silent, take_acked, until, worker
from .base import Base


class Ordered(BaseModel):
    number: int


@dataclass
class Invoiced:
    number: int


@dataclass
class Refused:
    number: int


class Returned(Base):
    """`to` and `reply`: the return value of a handler, and its failures."""

    async def test_what_a_handler_returns_is_published_before_the_ack(
        self, url: str, topic: str
    ) -> None:
        invoices = Topic(f"{topic}.invoices", Invoiced)
        app, router = App(url, name="billing"), Router(prefix=f"{topic}.")

        @router.subscriber("events", group="g", to="invoices", concurrency=4)
        async def invoice(event: Ordered) -> Invoiced | None:
            return Invoiced(event.number) if event.number else None

        @router.subscriber("events", group="g", concurrency=4)
        async def skip(event: Refused, delivery: Delivery) -> None: ...

        app.include(router)
        async with app, app.broker.subscribe(invoices, group="out") as published:
            receipt = await app.publish(
                f"{topic}.events", Ordered(number=1), key="k", correlation_id="flow"
            )
            for event in (Ordered(number=0), Refused(9), Ordered(number=2)):
                await app.publish(f"{topic}.events", event)
            found = await take_acked(published, 2)
            await silent(published, 0.5)
            await until(lambda: app.subscriptions[0].in_flight == 0)
        by_number = {item.decode(Invoiced).number: item.message for item in found}
        first = by_number[1]
        assert sorted(by_number) == [1, 2]
        assert (first.key, first.type, first.source) == ("k", "Invoiced", "billing")
        assert (first.correlation_id, first.causation_id) == ("flow", receipt.id)

    async def test_a_result_that_was_not_confirmed_is_published_again_with_its_id(
        self, url: str, topic: str
    ) -> None:
        sent: list[str] = []
        used: list[str] = []

        def lose_confirmations(publish: Publish) -> Publish:
            async def losing(message: Message) -> Receipt:
                if message.topic != f"{topic}.out":
                    return await publish(message)
                sent.append(message.id)
                if len(sent) == 1:
                    raise PublishTimeout("not stored")
                receipt = await publish(message)
                if len(sent) == 2:
                    raise PublishTimeout("stored, but not confirmed")
                return receipt

            return losing

        app = App(url, publish_middleware=[lose_confirmations])
        attempts: list[int] = []

        @app.subscriber(topic, group="g", to=f"{topic}.out", retry=Retry(initial=0.3, in_place=0))
        async def work(body: str, delivery: Delivery) -> str:
            attempts.append(delivery.attempt)
            return f"{body} done"

        @app.subscriber(f"{topic}.out", group="use", idempotency=Idempotency("memory://"))
        async def use(body: str) -> None:
            used.append(body)

        async with app:
            await app.publish(topic, "x")
            await until(lambda: len(sent) == 3 and len(used) == 1)
            await until(lambda: all(item.in_flight == 0 for item in app.subscriptions))
        assert attempts == [1, 2, 3]
        assert len(set(sent)) == 1
        assert used == ["x done"]

    async def test_a_returned_value_answers_a_request_and_nothing_else(
        self, url: str, topic: str
    ) -> None:
        separator = "&" if "?" in url else "?"
        app = App(f"{url}{separator}reply_topic={topic}.replies")
        handled: list[int] = []

        @app.subscriber(topic, group="g", reply=True)
        async def square(number: int) -> int:
            handled.append(number)
            return number * number

        async with app:
            await app.publish(topic, 2)
            await until(lambda: handled == [2])
            assert await app.broker.request(topic, 7, timeout=30, response=int) == 49
        assert handled == [2, 7]

    async def test_a_reply_that_was_not_confirmed_is_sent_again_with_its_id(
        self, url: str, topic: str
    ) -> None:
        sent: list[str] = []

        def lose_a_confirmation(publish: Publish) -> Publish:
            async def losing(message: Message) -> Receipt:
                receipt = await publish(message)
                if message.topic == f"{topic}.replies":
                    sent.append(message.id)
                    if len(sent) == 1:
                        raise PublishTimeout("stored, but not confirmed")
                return receipt

            return losing

        separator = "&" if "?" in url else "?"
        app = App(
            f"{url}{separator}reply_topic={topic}.replies", publish_middleware=[lose_a_confirmation]
        )

        @app.subscriber(topic, group="g", reply=True, retry=Retry(initial=0.1, in_place=0))
        async def square(number: int) -> int:
            return number * number

        @app.subscriber(topic, group="other", reply=True)
        async def other(number: int) -> int:
            return number * number

        async with app:
            assert await app.broker.request(topic, 7, timeout=30, response=int) == 49
            await until(lambda: len(sent) == 3)
            await until(lambda: all(item.in_flight == 0 for item in app.subscriptions))
        assert len(set(sent)) == 2

    async def test_a_killed_member_publishes_the_result_again_with_its_id(
        self, broker: Broker, killed_url: str, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        await broker.publish(topic, "x", key="k")
        async with broker.subscribe(f"{topic}.out", group="look") as results:
            async with worker("result", url=killed_url, topic=topic) as first:
                await first.hear("published")
                await first.kill()
            async with worker("result", url=killed_url, topic=topic) as second:
                await second.hear("published")
                await second.kill()
            found = await take_acked(results, 1)
            if not broker.capabilities.publish_dedup:
                found += await take_acked(results, 1)
        assert len({item.message.id for item in found}) == 1
