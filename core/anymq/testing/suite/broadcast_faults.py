"""Broadcast readers and replies while servers are killed and links are cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...consuming.subscription import Subscription
from ..harness import Server
from ..tools import until
from .base import Base

LINK_CUT_SECONDS = 12.0
"""Seconds for which a link is cut; every backend has lost its source by then."""
WAIT_SECONDS = 90.0
"""Seconds after which a waiting test fails."""


class Reader:
    """A broadcast subscription that fails `again` once, and whose handler then waits for `go`.

    So one message waits for a retry, one is in the handler, and the others are buffered.
    """

    def __init__(self, broker: Broker, topic: str, start: str) -> None:
        self.got: Counter[str] = Counter()
        self.attempts: list[int] = []
        self.go = asyncio.Event()
        self.subscription: Subscription = broker.subscribe(
            topic, group=None, start=start, handler=self._handle, prefetch=200, drain_timeout=1
        )

    async def _handle(self, body: str, delivery: Delivery) -> None:
        if body == "again":
            self.attempts.append(delivery.attempt)
            if delivery.attempt == 1:
                await delivery.nack(3.0)
                return
        if not body.startswith("old"):
            await self.go.wait()
        self.got[body] += 1

    async def full(self, count: int) -> None:
        """Return when the reader holds `count` messages."""
        await until(
            lambda: self.subscription.in_flight >= count and self.attempts == [1],
            within=WAIT_SECONDS,
            what="the buffer is full",
        )

    async def has(self, bodies: Iterable[str]) -> None:
        """Set `go`, and return when exactly `bodies` have been handled, each once."""
        expected = Counter(bodies)
        self.go.set()
        await until(
            lambda: expected.keys() <= self.got.keys(),
            within=WAIT_SECONDS,
            what="every message was handled",
        )
        assert self.got == expected
        assert self.attempts == [1, 2]


async def publish(broker: Broker, topic: str, name: str, count: int) -> list[str]:
    bodies = [f"{name} {number}" for number in range(count)]
    for receipt in await broker.publish_many(topic, bodies, key="k", timeout=WAIT_SECONDS):
        assert not isinstance(receipt, BaseException), receipt
    return bodies


class BroadcastFaults(Base):
    """Broadcast under faults: no message is lost or handled twice."""

    async def test_broadcast_loses_and_repeats_nothing_over_a_kill_and_a_stop(
        self, server: Server, topic: str
    ) -> None:
        async with connect(server.url) as broker:
            old = await publish(broker, topic, "old", 3)
            early, late = Reader(broker, topic, "earliest"), Reader(broker, topic, "latest")
            async with early.subscription, late.subscription:
                await broker.publish(topic, "again", key="k")
                new = ["again", *await publish(broker, topic, "new", 20)]
                await early.full(20)
                await late.full(20)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.up)
                async with connect(server.url) as other:
                    new += await publish(other, topic, "after", 10)
                await early.has([*old, *new])
                await late.full(30)
                await asyncio.to_thread(server.pause)
                try:
                    await asyncio.sleep(3)
                finally:
                    await asyncio.to_thread(server.resume)
                async with connect(server.url) as other:
                    new += await publish(other, topic, "resumed", 10)
                await early.has([*old, *new])
                await late.has(new)

    async def test_broadcast_and_replies_survive_a_cut_link(
        self, server: Server, topic: str
    ) -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def respond(body: str, delivery: Delivery) -> None:
            asked.set()
            await answer.wait()
            await delivery.reply(body.upper())

        async with (
            self.harness.link() as link,
            connect(server.url) as other,
            connect(link.url) as broker,
            other.subscribe(f"{topic}.questions", group="g", handler=respond),
        ):
            old = await publish(other, topic, "old", 3)
            early, late = Reader(broker, topic, "earliest"), Reader(broker, topic, "latest")
            async with early.subscription, late.subscription:
                await other.publish(topic, "again", key="k")
                new = ["again", *await publish(other, topic, "new", 20)]
                await early.full(20)
                await late.full(20)
                question = asyncio.create_task(
                    broker.request(f"{topic}.questions", "what", timeout=WAIT_SECONDS, response=str)
                )
                await asked.wait()
                link.cut()
                new += await publish(other, topic, "away", 10)
                answer.set()
                await asyncio.sleep(LINK_CUT_SECONDS)
                link.mend()
                new += await publish(other, topic, "back", 10)
                await early.has([*old, *new])
                await late.has(new)
                assert await question == "WHAT"
