"""Lifecycle: opening, closing and cancelling."""

from __future__ import annotations

import asyncio
import time

import pytest

from ...broker import Broker
from ...connect import connect
from ...errors import Closed, InvalidURL
from ..tools import WAIT_SECONDS, bodies, silent, take_acked, until
from .base import Base


class Lifecycle(Base):
    """Closing is clean, bounded in time and repeatable."""

    async def test_ping_succeeds_while_the_broker_is_open(self, broker: Broker) -> None:
        await broker.ping()
        assert broker.native is not None
        assert broker.capabilities.durability

    async def test_closing_ends_a_blocked_reader(self, broker: Broker, topic: str) -> None:
        subscription = broker.subscribe(topic, group="g")
        async with subscription:
            reader = asyncio.create_task(anext(subscription))
            await asyncio.sleep(0)
            await subscription.aclose()
            with pytest.raises(StopAsyncIteration):
                await reader
        await subscription.aclose()

    async def test_a_closed_broker_refuses_every_call(self, url: str, topic: str) -> None:
        broker = await connect(url)
        await broker.publish(topic, "x")
        subscription = broker.subscribe(topic, group="g")
        await subscription.__aenter__()
        await asyncio.gather(broker.aclose(), broker.aclose())
        await broker.aclose()
        with pytest.raises(Closed):
            await broker.publish(topic, "y")
        with pytest.raises(Closed):
            broker.subscribe(topic, group="g")
        with pytest.raises(Closed):
            await broker.ping()
        assert [item async for item in subscription] == []

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    async def test_closing_gives_an_iterating_task_time_to_settle(
        self, url: str, broker: Broker, topic: str, ordered: bool
    ) -> None:
        if ordered and not broker.capabilities.ordered:
            return
        await broker.publish_many(topic, ["0", "1", "2"], key=lambda _: "a")
        other = await connect(url)
        deliveries = other.subscribe(
            topic, group="g", ordered=ordered, drain_timeout=2 * WAIT_SECONDS
        )
        taken, settle = asyncio.Event(), asyncio.Event()
        settled: list[bytes] = []

        async def read() -> None:
            async for delivery in deliveries:
                taken.set()
                await settle.wait()
                await delivery.ack()
                settled.append(delivery.message.body)

        await deliveries.__aenter__()
        reading = asyncio.create_task(read())
        await taken.wait()
        closing = asyncio.create_task(other.aclose())
        await until(lambda: deliveries.closing)
        await asyncio.wait((closing,), timeout=2.0)
        assert not closing.done()
        settle.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(closing, reading)
        assert len(settled) == 1
        async with broker.subscribe(topic, group="g", ordered=ordered) as rest:
            left = await take_acked(rest, 2)
            await silent(rest, 0.3)
        assert {delivery.message.body for delivery in left} == {b"0", b"1", b"2"} - {*settled}

    async def test_closing_leaves_no_task_running(self, url: str, topic: str) -> None:
        before = asyncio.all_tasks()
        async with connect(url) as broker, broker.subscribe(topic, group="g") as deliveries:
            await broker.publish(topic, "x")
            await take_acked(deliveries, 1)
        await until(lambda: not (asyncio.all_tasks() - before), what="tasks ended")

    async def test_cancelling_a_read_loses_nothing(self, broker: Broker, topic: str) -> None:
        async with broker.subscribe(topic, group="g") as deliveries:
            for number in range(5):
                reader = asyncio.create_task(anext(deliveries))
                await asyncio.sleep(0.01 * number)
                publishing = asyncio.create_task(broker.publish(topic, str(number)))
                await asyncio.sleep(0.002 * number)
                reader.cancel()
                result = await asyncio.gather(reader, return_exceptions=True)
                await publishing
                if isinstance(result[0], BaseException):
                    assert bodies(await take_acked(deliveries, 1)) == [str(number)]
                else:
                    assert bodies([result[0]]) == [str(number)]
                    await result[0].ack()

    async def test_cancelling_a_publish_leaves_the_broker_usable(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "first")
        for number in range(20):
            task = asyncio.create_task(broker.publish(topic, f"maybe {number}"))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            started = time.monotonic()
            await asyncio.gather(task, return_exceptions=True)
            assert time.monotonic() - started < 5
        await broker.publish(topic, "last")
        async with broker.subscribe(topic, group="g") as deliveries:
            received: list[str] = []
            while "last" not in received or "first" not in received:
                received += bodies(await take_acked(deliveries, 1))

    async def test_connections_open_and_close_concurrently(
        self, broker: Broker, topic: str
    ) -> None:
        async def one(number: int) -> None:
            async with broker.subscribe(f"{topic}.{number % 3}", group=f"g{number}"):
                pass

        await asyncio.gather(*(one(number) for number in range(6)))

    async def test_an_unknown_option_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidURL, match="publish_timeout"):
            await connect(f"{url}{'&' if '?' in url else '?'}publish_timeut=3")
        with pytest.raises(InvalidURL, match="publish_timeout"):
            await connect(f"{url}{'&' if '?' in url else '?'}publish_timeout=soon")
