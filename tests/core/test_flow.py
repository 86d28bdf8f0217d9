"""`correlation` and `current_delivery`: the flow of what is published, in handlers and outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import anymq
from anymq import App, Batch, Broker, ConfigurationError, Delivery, Message, correlation
from anymq.testing import TestBroker
from anymq.testing.tools import eventually


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Broker]:
    async with anymq.connect("memory://") as broker:
        yield broker


async def ids(broker: Broker, topic: str = "t") -> list[tuple[str | None, str | None]]:
    """Return the correlation and causation ids of all messages."""
    found = [stored.message async for stored in broker.admin.browse(topic)]
    return [(message.correlation_id, message.causation_id) for message in found]


async def test_everything_inside_carries_the_id(broker: Broker) -> None:
    await broker.publish("t", 1)
    with correlation("outer") as id:
        assert id == "outer"
        await broker.publish("t", 2)
        with correlation("inner"):
            await broker.publish_many("t", [3, 4])
        await asyncio.create_task(broker.publish("t", 5, key="k"))
        await broker.publish("t", 6, correlation_id="stated")
        await broker.publish("t", 7, delay=0.01)
        leaving = asyncio.ensure_future(broker.publish("t", 8))
    await leaving
    await broker.publish("t", 9)
    found = await eventually(lambda: ids(broker), lambda found: len(found) == 9)
    assert sorted(str(flow) for flow, _ in found) == sorted(
        ["None", "outer", "inner", "inner", "outer", "stated", "outer", "outer", "None"]
    )
    assert {cause for _, cause in found} == {None}


async def test_a_new_id_is_made(broker: Broker) -> None:
    with correlation() as one, correlation() as other:
        await broker.publish("t", 1)
    assert one != other
    assert await ids(broker) == [(other, None)]


@pytest.mark.parametrize("wrong", ["", "a\nb", 5])
def test_a_bad_id_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="correlation id"), correlation(wrong):  # type: ignore[arg-type]  # pyright: ignore
        pass


async def test_publish_middleware_sees_the_id() -> None:
    seen: list[str | None] = []

    def note(publish: anymq.Publish) -> anymq.Publish:
        async def noting(message: Message) -> anymq.Receipt:
            seen.append(message.correlation_id)
            return await publish(message)

        return noting

    async with anymq.connect("memory://", publish_middleware=[note]) as broker:
        with correlation("c"):
            await broker.publish("t", 1)
            await broker.publish_many("t", [1])
    assert seen == ["c", "c"]


async def test_in_a_handler_the_message_stays_the_cause() -> None:
    app = App()
    seen: list[Delivery | None] = []

    @app.subscriber("t", group="g")
    async def handle(delivery: Delivery) -> None:
        seen.append(anymq.current_delivery())
        await app.publish("out", "before")
        with correlation("own"):
            seen.append(anymq.current_delivery())
            await app.publish("out", "inside")
        await app.publish("out", "after")
        seen.append(await asyncio.create_task(_current()))
        assert seen[-3:] == [delivery] * 3

    with correlation("of the test"):  # What starts handlers does not decide their flow.
        async with TestBroker(app) as broker:
            assert anymq.current_delivery() is None
            first = await broker.publish("t", "x", id="first")
            await broker.drain()
            await broker.publish("t", "x", id="second", correlation_id="stated")
            await broker.drain()
            assert await ids(app.broker, "out") == [
                ("of the test", first.id),
                ("own", first.id),
                ("of the test", first.id),
                ("stated", "second"),
                ("own", "second"),
                ("stated", "second"),
            ]
    assert len(seen) == 6


async def _current() -> Delivery | None:
    return anymq.current_delivery()


async def test_a_batch_has_no_current_delivery_but_may_have_an_id() -> None:
    app = App()
    seen: list[Delivery | None] = []

    @app.subscriber("t", group="g", batch=Batch(size=2, wait=1))
    async def handle(bodies: list[str]) -> None:
        seen.append(anymq.current_delivery())
        with correlation("batch"):
            await app.publish("out", bodies)

    async with TestBroker(app) as broker:
        await app.broker.publish_many("t", ["a", "b"])
        await broker.advance(2)
        assert await ids(app.broker, "out") == [("batch", None)]
    assert seen == [None]


async def test_a_handler_that_closes_its_app_inside_of_it_is_recognised() -> None:
    app = App()
    closed = asyncio.Event()

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None:
        with correlation("c"):
            await app.subscriptions[0].aclose()
        closed.set()

    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        async with asyncio.timeout(30):
            await closed.wait()


async def test_a_handler_that_waits_inside_of_it_lets_time_advance() -> None:
    app = App()
    done: list[str] = []

    @app.subscriber("t", group="g")
    async def handle(body: str, delivery: Delivery) -> None:
        with correlation("c"):
            await delivery.clock.sleep(60)
        done.append(body)

    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        await broker.drain()
        assert done == []
        await broker.advance(61)
        assert done == ["x"]
