"""Ordered groups: one message per key at a time, in order, also when members join and crash."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

from ...broker import Broker
from ...connect import connect
from ...driver.partitions import partition_of
from ...errors import ConfigurationError
from ...middleware import Acknowledge, DeadLetter, Middleware, Retry
from ...topic import Topic
from ...wire import dead_letter_headers as why
from ..history import History
from ..tools import WAIT_SECONDS, bodies, silent, take, take_acked, until, worker
from .base import Base
from .needs import needs

KEYS = [f"k{number}" for number in range(24)]
LEASE = 3.0
"""Seconds of `ack_deadline` in these tests."""


def numbered(first: int, last: int) -> list[str]:
    """Return the messages `key/number` from `first` to `last` of all KEYS, in that order."""
    return [f"{key}/{number}" for number in range(first, last) for key in KEYS]


def key_of(body: str) -> str:
    return body.partition("/")[0]


def retrying(**settings: object) -> list[Middleware]:
    """Return the default chain with a `Retry` that always leaves the backoff to redelivery."""
    retry = Retry(jitter=False, factor=1.0, in_place=0.0, **settings)  # type: ignore[arg-type]
    return [Acknowledge(), DeadLetter(), retry]


@needs("ordered")
class Ordered(Base):
    """Per-key order across members, retries, joins, leaves and crashes."""

    async def test_order_holds_over_two_members_with_eight_lanes_each(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=8)
        history = History()
        await broker.publish_many(lanes, numbered(0, 5), key=key_of)
        async with connect(url) as other:
            for name, member in (("one", broker), ("two", other)):
                handler = history.handler(name, pause=lambda: random.uniform(0, 0.01))
                await member.subscribe(
                    lanes, group="g", ordered=True, concurrency=8, handler=handler
                ).__aenter__()
            sent = numbered(0, 5)
            async with asyncio.timeout(WAIT_SECONDS):
                while len(history.members) < 2 or len(sent) < len(KEYS) * 15:
                    count = len(sent) // len(KEYS)
                    batch = numbered(count, count + 1)
                    await broker.publish_many(lanes, batch, key=key_of)
                    sent += batch
                    await asyncio.sleep(0.05)
            await until(lambda: history.finished >= set(sent))
        history.check(sent)

    async def test_order_does_not_apply_across_keys(self, broker: Broker, topic: str) -> None:
        lanes = Topic(topic, partitions=1)
        together = asyncio.Barrier(4)

        async def handle(_: str) -> None:
            await together.wait()

        async with broker.subscribe(
            lanes, group="g", ordered=True, concurrency=4, handler=handle
        ) as subscription:
            await broker.publish_many(lanes, ["a/0", "b/0", "c/0", "d/0"], key=key_of)
            await until(lambda: together.n_waiting == 0 and subscription.in_flight == 0)

    async def test_order_a_retry_holds_up_its_key_and_no_other(
        self, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=1)
        history = History(failing={"a/0": 2})
        async with broker.subscribe(
            lanes,
            group="g",
            ordered=True,
            concurrency=4,
            handler=history.handler("one"),
            middleware=retrying(attempts=5, initial=1.0),
        ):
            sent = [f"{key}/{number}" for number in range(5) for key in "abc"]
            await broker.publish_many(lanes, sent, key=key_of)
            await until(lambda: history.finished >= set(sent))
        history.check(sent)
        assert history.attempts("a/0") == [1, 2, 3]
        second = history.started.index(("a/0", 2))
        assert {body for body, _ in history.started[:second]} == {
            "a/0",
            *(body for body in sent if key_of(body) != "a"),
        }

    async def test_order_continues_after_a_dead_letter(self, broker: Broker, topic: str) -> None:
        lanes = Topic(topic, partitions=2)
        history = History(failing={"a/1": 99})
        async with (
            broker.subscribe(f"{topic}.g.dlq", group="ops") as letters,
            broker.subscribe(
                lanes,
                group="g",
                ordered=True,
                concurrency=2,
                handler=history.handler("one"),
                middleware=retrying(attempts=3, initial=0.2),
            ),
        ):
            await broker.publish_many(lanes, ["a/0", "a/1", "a/2"], key=key_of)
            (letter,) = await take_acked(letters, 1)
            await until(lambda: history.finished == {"a/0", "a/2"})
        assert letter.message.body == b"a/1"
        assert letter.message.headers[why.ATTEMPTS] == "3"
        assert [body for body, _ in history.started] == ["a/0", "a/1", "a/1", "a/1", "a/2"]

    async def test_order_holds_for_an_iterating_task(self, broker: Broker, topic: str) -> None:
        lanes = Topic(topic, partitions=4)
        await broker.publish_many(lanes, ["a/0", "a/1", "b/0"], key=key_of)
        async with broker.subscribe(lanes, group="g", ordered=True) as deliveries:
            first, second = sorted(
                await take(deliveries, 2), key=lambda delivery: delivery.message.body
            )
            assert bodies([first, second]) == ["a/0", "b/0"]
            await second.ack()
            await first.nack(0.3)
            (again,) = await take(deliveries, 1)
            assert (again.message.body, again.attempt) == (b"a/0", 2)
            await again.ack()
            assert bodies(await take_acked(deliveries, 1)) == ["a/1"]
            await silent(deliveries, 0.3)

    async def test_order_continues_where_the_group_stopped(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=2)
        await broker.publish_many(lanes, ["a/0", "a/1", "a/2", "b/0"], key=key_of)
        async with broker.subscribe(lanes, group="g", ordered=True) as deliveries:
            held = {delivery.message.key: delivery for delivery in await take(deliveries, 2)}
            await held["b"].ack()
            await held["a"].ack()
            (unsettled,) = await take(deliveries, 1)
            assert unsettled.message.body == b"a/1"
        await broker.publish(lanes, "b/1", key="b")
        async with (
            connect(url) as other,
            other.subscribe(lanes, group="g", ordered=True) as deliveries,
        ):
            rest = await take_acked(deliveries, 3, within=WAIT_SECONDS + LEASE)
            await silent(deliveries, 0.3)
        assert sorted(bodies(rest)) == ["a/1", "a/2", "b/1"]
        assert [body for body in bodies(rest) if body.startswith("a")] == ["a/1", "a/2"]
        assert {delivery.attempt for delivery in rest} == {1}, "released, not failed"

    async def test_order_holds_while_members_come_and_go(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=8)
        history = History()
        sent: list[str] = []
        full = asyncio.Event()

        async def publish() -> None:
            while not full.is_set():
                count = len(sent) // len(KEYS)
                batch = numbered(count, count + 1)
                await broker.publish_many(lanes, batch, key=key_of)
                sent.extend(batch)
                await asyncio.sleep(0.1)

        async def member(name: str) -> AsyncExitStack:
            stack = AsyncExitStack()
            connection = await stack.enter_async_context(connect(url))
            await stack.enter_async_context(
                connection.subscribe(
                    lanes,
                    group="g",
                    ordered=True,
                    concurrency=4,
                    ack_deadline=LEASE,
                    handler=history.handler(name, pause=lambda: random.uniform(0, 0.03)),
                )
            )
            return stack

        publishing = asyncio.create_task(publish())
        members = [await member("m0")]
        for number in (1, 2, 3):
            members.append(await member(f"m{number}"))
            await until(lambda n=number: f"m{n}" in history.members, within=WAIT_SECONDS)  # type: ignore[misc]
            await members.pop(0).aclose()
        full.set()
        await publishing
        await until(lambda: history.finished >= set(sent), within=WAIT_SECONDS)
        for stack in members:
            await stack.aclose()
        history.check(sent)

    async def test_order_survives_the_kill_of_a_member(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        lanes = Topic(topic, partitions=8)
        history = History()
        sent: list[str] = []
        async with (
            worker(
                "lanes", url=killed_url, topic=topic, group="g", partitions=8, deadline=LEASE
            ) as process,
            broker.subscribe(
                lanes,
                group="g",
                ordered=True,
                concurrency=4,
                ack_deadline=LEASE,
                handler=history.handler("here", pause=lambda: 0.005),
            ),
        ):
            await process.hear("ready")
            heard = process.listen("handling")
            async with asyncio.timeout(WAIT_SECONDS):
                while len(heard) < 100 or len(history.started) < 100:
                    count = len(sent) // len(KEYS)
                    sent += (batch := numbered(count, count + 1))
                    await broker.publish_many(lanes, batch, key=key_of)
                    await asyncio.sleep(0.05)
            sent += (batch := numbered(len(sent) // len(KEYS), len(sent) // len(KEYS) + 5))
            await broker.publish_many(lanes, batch, key=key_of)
            await process.kill()
            history.hear("there", process.said)
            await until(lambda: history.finished >= set(sent), within=2 * WAIT_SECONDS)
        history.check(sent)

    async def test_order_attempts_survive_a_kill(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        lanes = Topic(topic, partitions=2)
        await broker.publish_many(lanes, ["a/0", "a/1"], key=key_of)
        async with worker(
            "lanes",
            url=killed_url,
            topic=topic,
            group="g",
            partitions=2,
            deadline=LEASE,
            failing="a/0",
        ) as process:
            attempts = [(await process.hear("handling"))["attempt"] for _ in range(3)]
            assert attempts == [1, 2, 3]
            await asyncio.sleep(self.harness.ack_window)
            await process.kill()
        async with broker.subscribe(
            lanes, group="g", ordered=True, ack_deadline=LEASE
        ) as deliveries:
            first, second = await take_acked(deliveries, 2, within=2 * WAIT_SECONDS)
        assert bodies([first, second]) == ["a/0", "a/1"]
        assert first.attempt >= (4 if broker.capabilities.ordered_attempts else 1)
        assert second.attempt <= 2, "never handled before; at most delivered to the killed process"

    async def test_order_of_a_group_is_changed_or_the_change_is_refused(
        self, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=2)
        for ordered in (True, False):
            group = "ordered" if ordered else "competing"
            async with broker.subscribe(lanes, group=group, ordered=ordered):
                await broker.publish(lanes, "a/0", key="a")
            try:
                async with broker.subscribe(lanes, group=group, ordered=not ordered) as other:
                    await take_acked(other, 1)
            except ConfigurationError as refusal:
                assert "ordered" in str(refusal)  # noqa: PT017

    async def test_order_partitions_are_the_same_everywhere(
        self, broker: Broker, topic: str
    ) -> None:
        lanes = Topic(topic, partitions=8)
        await broker.publish_many(lanes, numbered(0, 1), key=key_of)
        async with broker.subscribe(lanes, group="g", ordered=True) as deliveries:
            taken = await take_acked(deliveries, len(KEYS))
        found = {delivery.message.key: delivery.partition for delivery in taken}
        assert found == {key: partition_of(key, 8) for key in KEYS}

    async def test_order_an_idle_member_takes_over_when_the_owner_leaves(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        """With more members than partitions, the others wait and take over when needed."""
        lanes = Topic(topic, partitions=1)
        history = History()
        async with connect(url) as first, connect(url) as second:
            members = {
                name: member.subscribe(
                    lanes, group="g", ordered=True, handler=history.handler(name)
                )
                for name, member in (("one", broker), ("two", first), ("three", second))
            }
            for subscription in members.values():
                await subscription.__aenter__()
            await broker.publish(lanes, "a/0", key="a")
            await until(lambda: "a/0" in history.finished)
            (working,) = history.members
            await members[working].aclose()
            await broker.publish(lanes, "a/1", key="a")
            await until(lambda: "a/1" in history.finished)
        history.check(["a/0", "a/1"])
