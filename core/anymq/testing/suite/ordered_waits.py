"""Backoff in ordered groups: the next owner of a partition continues the delay of a `nack`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...consuming.subscription import Subscription
from ...driver.records import Due, Nack, Received
from ...topic import Topic
from ..samples import Samples, attempt, receive
from ..tools import WAIT_SECONDS, bodies, silent, take, take_acked, worker
from .base import Base
from .needs import needs
from .sources import joined_ordered, samples_of, stored

DELAY, ONE_HOUR = 4.0, 3600.0
LEASE = 3.0
"""Seconds of `ack_deadline` in these tests."""
CLOCK_TOLERANCE = 0.1
"""Seconds by which the two clocks of a test may differ, by rounding and slewing."""


def key_of(body: str) -> str:
    return body.partition("/")[0]


@asynccontextmanager
async def member(url: str, lanes: Topic) -> AsyncIterator[Subscription]:
    """A member of the group, over a connection of its own."""
    async with (
        connect(url) as broker,
        broker.subscribe(lanes, group="g", ordered=True, ack_deadline=LEASE) as deliveries,
    ):
        yield deliveries


async def fail(deliveries: Subscription, delay: float) -> float:
    """Take one of `a` and one of `b`, fail `a`, ack `b`; return the time when `a` is due."""
    held: dict[str | None, Delivery] = {one.message.key: one for one in await take(deliveries, 2)}
    await held["b"].ack()
    due = time.monotonic() + delay
    await held["a"].nack(delay)
    return due


@needs("ordered")
class OrderedWaits(Base):
    """The backoff of a failed message is durable where attempts are (`ordered_attempts`)."""

    async def test_order_a_backoff_continues_with_the_next_owner(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.ordered_attempts:
            return
        lanes = Topic(topic, partitions=1)
        await broker.publish_many(lanes, ["a/0", "a/1", "b/0"], key=key_of)
        async with member(url, lanes) as deliveries:
            due = await fail(deliveries, DELAY)
        async with member(url, lanes) as deliveries:
            (first,) = await take(deliveries, 1, within=WAIT_SECONDS + DELAY)
            assert time.monotonic() > due - CLOCK_TOLERANCE
            assert (first.message.body, first.attempt) == (b"a/0", 2)
            await silent(deliveries, 0.2)
            await first.ack()
            assert bodies(await take_acked(deliveries, 1)) == ["a/1"]

    async def test_order_an_inherited_backoff_holds_up_its_key_alone(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.ordered_attempts:
            return
        lanes = Topic(topic, partitions=1)
        async with member(url, lanes) as deliveries:
            await broker.publish_many(lanes, ["a/0", "a/1", "b/0"], key=key_of)
            await fail(deliveries, ONE_HOUR)
        for number in (1, 2):
            async with member(url, lanes) as deliveries:
                await broker.publish(lanes, f"b/{number}", key="b")
                assert bodies(await take_acked(deliveries, 1)) == [f"b/{number}"]
                await silent(deliveries, 0.3)

    async def test_order_a_long_backoff_survives_a_kill(
        self, url: str, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not (broker.capabilities.processes and broker.capabilities.ordered_attempts):
            return
        lanes = Topic(topic, partitions=1)
        await broker.publish_many(lanes, ["a/0", "a/1", "b/0"], key=key_of)
        async with worker(
            "lanes",
            url=killed_url,
            topic=topic,
            group="g",
            partitions=1,
            deadline=LEASE,
            failing="a/0",
            wait=2 * DELAY,
        ) as process:
            began = {(one := await process.hear("handling"))["body"]: one["at"] for _ in "ab"}
            await process.hear("handled")
            await asyncio.sleep(self.harness.ack_window)
            await process.kill()
        async with member(url, lanes) as deliveries:
            (first,) = await take(deliveries, 1, within=WAIT_SECONDS + 2 * DELAY)
            assert time.monotonic() > began["a/0"] + 2 * DELAY - CLOCK_TOLERANCE
            assert first.message.body == b"a/0"
            assert first.attempt >= 2
            await first.ack()
            assert bodies(await take_acked(deliveries, 1)) == ["a/1"]

    async def test_an_ordered_source_carries_the_due_time_to_its_successors(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        if not broker.capabilities.ordered_attempts:
            return
        await stored(driver, samples, 3)
        due = Due(time.time() + ONE_HOUR, ONE_HOUR)
        async with joined_ordered(driver, samples) as source:
            got = await receive(source, 3)
            assert [record.not_before for record in got] == [None] * 3
            await source.keep([kept(samples, got[0], 2, due), kept(samples, got[1], 2, due)])
            await source.keep([kept(samples, got[1], 3, None)])
        for _ in range(2):
            async with joined_ordered(driver, samples) as source:
                got = await receive(source, 3)
                assert [attempt(record) for record in got] == [2, 3, 1]
                first, *others = [record.not_before for record in got]
                assert others == [None, None]
                assert first is not None
                assert first.at >= due.at - 0.001
                assert abs(first.at - due.at) < 2.0
                assert abs(first.delay - due.delay) < 2.0
        async with joined_ordered(driver, samples) as source:
            got = await receive(source, 3)
            await source.keep([kept(samples, got[0], 3, None)])
        async with joined_ordered(driver, samples) as source:
            got = await receive(source, 3)
            assert [record.not_before for record in got] == [None] * 3
            await source.ack(got)


def kept(samples: Samples, record: Received, shown: int, due: Due | None) -> Nack:
    """The argument that the core passes for a failed attempt in an ordered group."""
    copy = samples.copy(record, shown)
    delay = 0.0 if due is None else due.delay
    return Nack(record, delay, shown, native_attempt=attempt(record) + 1, copy=copy, due=due)
