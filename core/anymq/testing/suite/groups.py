"""Groups and broadcast: distribution of messages, and start positions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count

from ...broker import Broker
from ...connect import connect
from ...driver.partitions import partition_of
from ...topic import Topic
from ..harness import random_name
from ..tools import WAIT_SECONDS, bodies, silent, take_acked, until, worker
from .base import Base


def _evenly(partitions: int) -> Iterator[str]:
    """Yield a key for each partition."""
    for partition in range(partitions):
        yield next(key for key in map(str, count()) if partition_of(key, partitions) == partition)


class Groups(Base):
    """Members compete, groups are independent, `group=None` is broadcast."""

    async def test_members_of_a_group_share_its_messages(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        shares: list[list[str]] = [[], []]

        def member(index: int):  # type: ignore[no-untyped-def]
            async def handle(body: str) -> None:
                shares[index].append(body)
                await asyncio.sleep(0.01)

            return handle

        async with connect(url) as other, AsyncExitStack() as stack:
            for index, one in enumerate((broker, other)):
                await stack.enter_async_context(
                    one.subscribe(topic, group="g", handler=member(index), prefetch=5)
                )
            sent: list[str] = []

            async def more() -> None:
                batch = [str(len(sent) + number) for number in range(20)]
                await broker.publish_many(topic, batch, key=lambda body: body)
                sent.extend(batch)

            # A member may get its share only some time after it has joined.
            async with asyncio.timeout(WAIT_SECONDS):
                while len(sent) < 100 or not all(shares):
                    await more()
                    await until(lambda: sum(map(len, shares)) >= len(sent))
        handled = shares[0] + shares[1]
        assert set(handled) == set(sent)

    async def test_members_that_start_together_share_a_backlog(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        members, each, seconds = 3, 4, 0.4
        shared = Topic(topic, partitions=2 * members)
        await broker.publish_many(
            shared, [*_evenly(2 * members)] * (each // 2), key=lambda body: body
        )
        running: set[int] = set()
        all_run = asyncio.Event()
        shares: Counter[int] = Counter()

        def member(index: int):  # type: ignore[no-untyped-def]
            async def handle(body: str) -> None:
                running.add(index)
                await all_run.wait()
                await asyncio.sleep(seconds)
                shares[index] += 1

            return handle

        async with AsyncExitStack() as stack:
            for index in range(members):
                one = await stack.enter_async_context(connect(url))
                await stack.enter_async_context(
                    one.subscribe(shared, group="g", handler=member(index))
                )
            await until(lambda: len(running) == members, what="every member has a message")
            all_run.set()
            await until(lambda: shares.total() == members * each)
        # A member may have had a message of a partition that has moved, or be the faster one.
        assert max(shares.values()) <= each + each // 2, shares

    async def test_groups_are_independent(self, broker: Broker, topic: str) -> None:
        async with (
            broker.subscribe(topic, group="a") as first,
            broker.subscribe(topic, group="b") as second,
        ):
            await broker.publish(topic, "x")
            (one,) = await take_acked(first, 1)
            (two,) = await take_acked(second, 1)
        assert one.message == two.message

    async def test_topics_are_isolated(self, broker: Broker, topic: str) -> None:
        async with (
            broker.subscribe(topic, group="g") as first,
            broker.subscribe(f"{topic}.sub", group="g") as second,
        ):
            await broker.publish(topic, "one")
            await broker.publish(f"{topic}.sub", "two")
            assert bodies(await take_acked(first, 1)) == ["one"]
            assert bodies(await take_acked(second, 1)) == ["two"]
            await silent(first, 0.3)

    async def test_broadcast_reaches_every_subscriber_from_now_on(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "before")
        async with (
            connect(url) as other,
            broker.subscribe(topic, group=None) as first,
            other.subscribe(topic, group=None) as second,
        ):
            await broker.publish(topic, "after")
            assert bodies(await take_acked(first, 1)) == ["after"]
            assert bodies(await take_acked(second, 1)) == ["after"]

    async def test_broadcast_from_earliest_reads_the_whole_topic(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish_many(topic, ["1", "2", "3"], key="k")
        async with broker.subscribe(topic, group=None, start="earliest") as deliveries:
            assert bodies(await take_acked(deliveries, 3)) == ["1", "2", "3"]
            await broker.publish(topic, "4", key="k")
            assert bodies(await take_acked(deliveries, 1)) == ["4"]

    async def test_broadcast_redelivers_a_failure_to_its_subscriber(
        self, broker: Broker, topic: str
    ) -> None:
        async with broker.subscribe(topic, group=None) as deliveries:
            await broker.publish(topic, "x")
            delivery = await anext(deliveries)
            await delivery.nack(0.2)
            (again,) = await take_acked(deliveries, 1)
            assert (again.message.id, again.attempt) == (delivery.message.id, 2)

    async def test_a_new_group_gets_earlier_messages(self, broker: Broker, topic: str) -> None:
        sent = [str(number) for number in range(20)]
        await broker.publish_many(topic, sent)
        async with broker.subscribe(topic, group="late") as deliveries:
            await broker.publish(topic, "live")
            received = bodies(await take_acked(deliveries, 21))
        assert sorted(received) == sorted([*sent, "live"])

    async def test_a_new_group_from_latest_gets_only_later_messages(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "before")
        async with broker.subscribe(topic, group="g", start="latest") as deliveries:
            await broker.publish(topic, "after")
            assert bodies(await take_acked(deliveries, 1)) == ["after"]

    async def test_a_group_continues_where_it_stopped(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish_many(topic, ["1", "2", "3"], key="k")
        async with broker.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 3)) == ["1", "2", "3"]
        await broker.publish_many(topic, ["4", "5"], key="k")
        async with connect(url) as other, other.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 2)) == ["4", "5"]
            await silent(deliveries, 0.3)

    async def test_many_topics_are_created_at_once(self, broker: Broker) -> None:
        topics = [random_name() for _ in range(5)]
        async with AsyncExitStack() as stack:
            subscriptions = [
                await stack.enter_async_context(broker.subscribe(topic, group="g"))
                for topic in topics
            ]
            await asyncio.gather(*(broker.publish(topic, topic, timeout=30) for topic in topics))
            for topic, subscription in zip(topics, subscriptions, strict=True):
                assert bodies(await take_acked(subscription, 1)) == [topic]

    async def test_processes_of_a_group_share_its_messages(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note, "the limit is explained"
            return
        async with (
            worker("share", url=killed_url, topic=topic, group="g") as first,
            worker("share", url=killed_url, topic=topic, group="g") as second,
        ):
            await asyncio.gather(first.hear("ready"), second.hear("ready"))
            shares = [first.listen("handled"), second.listen("handled")]
            sent: list[str] = []
            async with asyncio.timeout(WAIT_SECONDS):
                while len(sent) < 60 or not all(shares):
                    batch = [str(len(sent) + number) for number in range(20)]
                    await broker.publish_many(topic, batch, key=lambda body: body)
                    sent.extend(batch)
                    await until(lambda: sum(map(len, shares)) >= len(sent))
        handled = [event["body"] for share in shares for event in share]
        assert set(handled) == set(sent)
