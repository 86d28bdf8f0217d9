"""Requests and replies: each request gets its reply, or an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

import pytest
import pytest_asyncio
from pydantic import BaseModel

from ...app import App
from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...errors import Closed, ConfigurationError, Reject, RequestFailed, RequestTimeout, StateError
from ...message import Message, Receipt
from ...middleware import Publish, Retry
from ..harness import random_name
from ..tools import WAIT_SECONDS, take, until, worker
from .base import Base


class Question(BaseModel):
    number: int


class Answer(BaseModel):
    square: int


class Requests(Base):
    """The contract of `Broker.request` and `Delivery.reply`."""

    @pytest.fixture
    def asking_url(self, url: str) -> str:
        """A URL with a reply topic of its own."""
        return f"{url}{'&' if '?' in url else '?'}reply_topic={random_name('replies')}"

    @pytest_asyncio.fixture
    async def asker(self, asking_url: str) -> AsyncIterator[Broker]:
        async with connect(asking_url) as broker:
            yield broker

    def _squares(self, url: str, topic: str) -> App:
        app = App(url)

        @app.subscriber(topic, group="squares", concurrency=4)
        async def square(question: Question, delivery: Delivery) -> None:
            await delivery.reply(Answer(square=question.number**2))

        return app

    async def test_every_reply_finds_its_request(self, asking_url: str, topic: str) -> None:
        async with (
            self._squares(asking_url, topic),
            connect(asking_url) as one,
            connect(asking_url) as other,
        ):

            async def ask(broker: Broker, number: int) -> int:
                answer = await broker.request(
                    topic, Question(number=number), response=Answer, timeout=30
                )
                return answer.square

            answers = await asyncio.gather(
                *(ask(broker, n) for n in range(20) for broker in (one, other))
            )
            assert answers == [n**2 for n in range(20) for _ in range(2)]
            assert one.late_replies == other.late_replies == 0

    async def test_a_reply_carries_the_correlation_and_causation_ids(
        self, asking_url: str, topic: str
    ) -> None:
        app = App(asking_url)
        inner = random_name()
        seen: list[Message] = []

        @app.subscriber(topic, group="outer")
        async def outer(body: str, delivery: Delivery) -> None:
            seen.append(delivery.message)
            answer = await app.broker.request(inner, body, timeout=30)
            await delivery.reply(answer.body.decode() + "!", headers={"tone": "loud"})

        @app.subscriber(inner, group="inner")
        async def echo(body: str, delivery: Delivery) -> None:
            seen.append(delivery.message)
            await delivery.reply(body)

        async with app, connect(asking_url) as asker:
            reply = await asker.request(topic, "hello", key="k", headers={"a": "b"}, timeout=30)
        first, second = seen
        assert reply.body == b"hello!"
        assert reply.headers["tone"] == "loud"
        assert (first.key, first.headers["a"]) == ("k", "b")
        assert reply.causation_id == second.causation_id == first.id
        assert reply.correlation_id == second.correlation_id == first.id

    async def test_a_retried_request_can_be_replied_to(
        self, asking_url: str, asker: Broker, topic: str
    ) -> None:
        app = App(asking_url)

        @app.subscriber(
            topic, group="g", retry=Retry(initial=0.2, jitter=False, in_place=0, attempts=3)
        )
        async def handle(delivery: Delivery) -> None:
            if delivery.attempt < 3:
                raise ValueError("not yet")
            await delivery.reply(str(delivery.attempt))

        async with app:
            reply = await asker.request(topic, "x", timeout=30)
        assert reply.body == b"3"

    async def test_a_rejected_request_fails_at_once(
        self, asking_url: str, asker: Broker, topic: str
    ) -> None:
        app = App(asking_url)

        @app.subscriber(
            topic, group="g", retry=Retry(attempts=2, initial=0.05, in_place=0, jitter=False)
        )
        async def handle(question: Question) -> None:
            if question.number:
                raise Reject("größer als\n0")
            raise KeyError("broken")

        async with app:
            with pytest.raises(RequestFailed, match="größer als 0"):
                await asker.request(topic, Question(number=1), timeout=30)
            with pytest.raises(RequestFailed, match="retries exhausted after 2 attempts"):
                await asker.request(topic, Question(number=0), timeout=30)
            with pytest.raises(RequestFailed, match="invalid payload"):
                await asker.request(topic, {"number": "x"}, timeout=30)

    async def test_a_reply_of_another_type_fails(
        self, asking_url: str, asker: Broker, topic: str
    ) -> None:
        async with self._squares(asking_url, topic):
            with pytest.raises(RequestFailed, match="number"):
                await asker.request(topic, Question(number=1), response=Question, timeout=30)

    async def test_a_request_times_out_and_late_replies_are_counted(
        self, asking_url: str, asker: Broker, topic: str
    ) -> None:
        app = App(asking_url)
        go = asyncio.Event()

        @app.subscriber(topic, group="g")
        async def handle(body: str, delivery: Delivery) -> None:
            if body == "slow":
                await go.wait()
            await delivery.reply(body)
            await delivery.reply("again")

        async with app:
            reply = await asker.request(topic, "quick", timeout=30)
            assert reply.body == b"quick"
            await until(lambda: asker.late_replies == 1, what="the second reply")
            started = time.monotonic()
            with pytest.raises(RequestTimeout, match=topic):
                await asker.request(topic, "slow", timeout=1)
            assert time.monotonic() - started < 10
            go.set()
            await until(lambda: asker.late_replies == 3)

    async def test_only_a_request_can_be_replied_to(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take(deliveries, 1)
            with pytest.raises(StateError, match="not a request"):
                await delivery.reply("y")
            await delivery.ack()
        with pytest.raises(ConfigurationError, match="timeout"):
            await broker.request(topic, "x", timeout=0)

    async def test_a_forged_request_cannot_choose_the_reply_topic(
        self, broker: Broker, url: str, topic: str
    ) -> None:
        """A request must name the configured reply topic; no other topic is created."""
        target = f"{topic}.victim"

        def forge(publish: Publish) -> Publish:
            def forged(message: Message) -> Awaitable[Receipt]:
                where = {"ce-replyto": target, "ce-replyinbox": "x"}
                return publish(replace(message, headers=where))

            return forged

        refused: list[bool] = []

        async def answer(delivery: Delivery) -> None:
            with pytest.raises(StateError):
                await delivery.reply("yours")
            refused.append(True)

        async with (
            broker.subscribe(topic, group="answers", handler=answer),
            connect(url, publish_middleware=[forge]) as stranger,
        ):
            await stranger.publish(topic, 1)
            await until(lambda: refused)
        if broker.capabilities.admin:
            assert target not in await broker.admin.topics()

    async def test_closing_ends_open_requests(self, asking_url: str, topic: str) -> None:
        async with connect(asking_url) as broker:
            asking = asyncio.create_task(broker.request(topic, "x", timeout=60))
            async with broker.subscribe(topic, group="g") as deliveries:
                (delivery,) = await take(deliveries, 1)
                await delivery.ack()
        with pytest.raises(Closed):
            await asyncio.wait_for(asking, WAIT_SECONDS)

    @pytest.mark.anymq_needs("admin")
    async def test_a_killed_requester_leaves_no_group(
        self, asking_url: str, asker: Broker, topic: str, broker: Broker
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        replies = asking_url.partition("reply_topic=")[2]
        async with self._squares(asking_url, topic):
            await asker.request(topic, Question(number=1), timeout=30)
            async with worker("ask", url=asking_url, topic=topic) as other:
                await other.hear("answered")
            await asker.request(topic, Question(number=2), timeout=30)
            assert await broker.admin.groups(replies) == []
