"""`broker.admin`: the same fields on every backend, or None for values a broker does not report."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...broker import Broker
from ...connect import connect
from ...driver.info import GroupInfo
from ...errors import ConfigurationError, NotFound, StateError, UnsupportedOperation
from ...names import check_topic
from ...topic import Topic
from ..harness import random_name
from ..tools import bodies, eventually, silent, take, take_acked
from .base import Base
from .needs import needs


def known(value: Any, expected: Any) -> bool:
    """Whether `value` is `expected`, or unknown."""
    return value is None or value == expected


@needs("admin")
class Operating(Base):
    """Administration: list, describe, declare, delete, purge."""

    async def test_admin_lists_topics_and_groups(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x")
        for group in ("b", "a"):
            async with broker.subscribe(topic, group=group) as deliveries:
                (delivery,) = await take(deliveries, 1)
                await delivery.reject("to have a dead-letter topic")
        topics = await eventually(broker.admin.topics, lambda found: f"{topic}.a.dlq" in found)
        assert {topic, f"{topic}.a.dlq", f"{topic}.b.dlq"} <= set(topics)
        assert [name for name in topics if name.startswith(topic)] == sorted(
            [topic, f"{topic}.a.dlq", f"{topic}.b.dlq"]
        )
        assert await broker.admin.groups(topic) == ["a", "b"]

    async def test_admin_lists_the_groups_that_it_can_describe(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="native") as deliveries:
            await take_acked(deliveries, 1)
        native = (await broker.admin.describe(topic, "native")).native
        logical = random_name("logical")
        names = {logical: topic, f"{logical}.mapped": native}
        async with connect(url, names=names) as other:
            async with other.subscribe(logical, group="own") as deliveries:
                await take_acked(deliveries, 1)
            for user, name, expected in (
                (other, logical, {"mapped", "own"}),
                (broker, topic, {"native"}),
            ):
                listed = await user.admin.groups(name)
                assert expected <= set(listed)
                for group in listed:
                    assert (await user.admin.describe(name, group)).group == group

    async def test_admin_describes_every_topic_that_it_lists(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="a") as deliveries:
            (delivery,) = await take(deliveries, 1)
            await delivery.reject("to have a letter")
        letters = broker.admin.dead_letters(topic, "a")
        await eventually(letters.list, bool)
        await letters.redrive_all()
        await eventually(broker.admin.topics, lambda found: f"{topic}.a.dlq" in found)
        for name in await broker.admin.topics():
            check_topic(name)
            if name.startswith(topic):
                assert (await broker.admin.describe(name)).name == name

    async def test_admin_describes_a_topic(self, broker: Broker, topic: str) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        target = Topic[str](topic, partitions=4)
        await broker.publish_many(target, [str(n) for n in range(40)], key=lambda body: body)
        await broker.publish(target, "later", delay=3600)
        info = await eventually(
            lambda: broker.admin.describe(target), lambda found: known(found.messages, 40)
        )
        assert (info.name, info.native) == (topic, topic)
        assert [partition.number for partition in info.partitions] == [0, 1, 2, 3]
        counts = [partition.messages for partition in info.partitions]
        assert None in counts or (sum(counts) == 40 and all(counts))
        assert info.oldest is None or before <= info.oldest <= datetime.now(UTC)
        assert known(info.delayed, 1)
        assert info.bytes is None or info.bytes > 0

    async def test_admin_describes_a_group(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, [str(n) for n in range(10)], key="k")
        async with broker.subscribe(topic, group="g", prefetch=3) as deliveries:
            held = await take(deliveries, 3)
            await held[0].ack()
            info = await self._when(
                broker,
                topic,
                lambda found: known(found.lag, 9) and found.in_flight in (None, 2, 3),
            )
            assert (info.topic, info.group) == (topic, "g")
            assert info.members is None or len(info.members) == 1
            assert known(info.ordered, False)
            assert info.oldest_pending is None or 0 <= info.oldest_pending < 60
            assert info.lag_seconds is None or 0 <= info.lag_seconds < 60
            await held[1].nack(600)
            await self._when(
                broker, topic, lambda found: known(found.waiting, 1) and known(found.lag, 9)
            )
            await held[2].ack()
            await take_acked(deliveries, 7)
            await self._when(broker, topic, lambda found: known(found.lag, 1))
        info = await self._when(broker, topic, lambda found: found.members in (None, ()))
        assert known(info.in_flight, 0)
        assert (
            info.lag_seconds is None or 0 < info.lag_seconds < 300
        )  # one message waits for a retry

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("name", [None, "Our shop/1.4: orders"])
    async def test_members_have_the_name_of_their_client(
        self, broker: Broker, url: str, topic: str, ordered: bool, name: str | None
    ) -> None:
        await broker.publish(topic, "x", key="k")
        async with connect(url, name=name) as own:
            if ordered and not own.capabilities.ordered:
                pytest.skip("no ordered groups")
            host = re.escape(socket.gethostname().partition(".")[0])
            begin = "anymq" if name is None else "Our-shop-1.4-orders"
            assert re.fullmatch(rf"{begin}-{host}-{os.getpid()}-[a-z0-9]{{8}}", own.name)
            async with (
                own.subscribe(topic, group="g", ordered=ordered) as one,
                own.subscribe(topic, group="g", ordered=ordered) as two,
            ):
                assert one.member.startswith(f"{own.name}-")
                assert one.member != two.member
                info = await self._when(
                    own, topic, lambda found: found.members is None or len(found.members) == 2
                )
                members = [member.name for member in info.members or ()]
                assert len(set(members)) == len(members)
                assert all(member.startswith(f"{own.name}-") for member in members), members
                for partition in info.partitions or ():
                    assert partition.owner is None or partition.owner in members

    async def _when(
        self, broker: Broker, topic: str, holds: Callable[[GroupInfo], bool]
    ) -> GroupInfo:
        found = await eventually(lambda: broker.admin.describe(topic, "g"), holds)
        assert isinstance(found, GroupInfo)
        return found

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_admin_reports_the_age_of_the_oldest_unsettled_message(
        self, broker: Broker, topic: str, ordered: bool
    ) -> None:
        if ordered and not broker.capabilities.ordered:
            pytest.skip("no ordered groups")
        await broker.publish(topic, "x", key="k")
        began = time.monotonic()
        async with broker.subscribe(topic, group="g", ordered=ordered) as deliveries:
            (delivery,) = await take(deliveries, 1)
            await asyncio.sleep(1.2)
            info = await broker.admin.describe(topic, "g")
            seen = [info.lag_seconds]
            await delivery.nack(600)
            if not ordered:
                await self._when(broker, topic, lambda found: known(found.waiting, 1))
            seen.append((await broker.admin.describe(topic, "g")).lag_seconds)
            for age in seen:
                assert age is None or 1 < age < time.monotonic() - began + 2, seen

    async def test_admin_describes_an_ordered_group(self, broker: Broker, topic: str) -> None:
        if not broker.capabilities.ordered:
            with pytest.raises(UnsupportedOperation):
                broker.subscribe(topic, group="g", ordered=True)
            return
        target = Topic[str](topic, partitions=4)
        await broker.publish_many(target, [str(n) for n in range(40)], key=lambda body: body)
        async with broker.subscribe(target, group="g", ordered=True) as deliveries:
            await take_acked(deliveries, 30)
            info = await self._when(broker, topic, lambda found: known(found.lag, 10))
            assert known(info.ordered, True)
            assert info.partitions is None or len(info.partitions) == 4
            await take_acked(deliveries, 10)
            info = await self._when(broker, topic, lambda found: known(found.lag, 0))
            assert known(info.lag_seconds, 0.0)

    async def test_admin_reports_poison_messages(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "poison")
        async with broker.subscribe(topic, group="g") as deliveries:
            for _ in range(3):
                (delivery,) = await take(deliveries, 1)
                await delivery.nack()
            (delivery,) = await take(deliveries, 1)
            assert delivery.attempt == 4
            info = await broker.admin.describe(topic, "g")
            if info.poison is not None:
                (candidate,) = info.poison
                assert candidate.attempts >= 3
            await delivery.ack()

    async def test_admin_raises_not_found_for_absent_topics_and_groups(
        self, broker: Broker, topic: str
    ) -> None:
        with pytest.raises(NotFound):
            await broker.admin.describe(topic)
        await broker.publish(topic, "x")
        assert await broker.admin.groups(topic) == []
        with pytest.raises(NotFound):
            await broker.admin.describe(topic, "absent")
        await broker.admin.delete(topic, "absent")
        await broker.admin.delete(f"{topic}.absent")
        with pytest.raises(ConfigurationError):
            await broker.admin.describe("*")

    async def test_admin_deletes_a_group(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            await take_acked(deliveries, 1)
            with pytest.raises(StateError):
                await broker.admin.delete(topic, "g")
        await self._deleted(broker, topic)
        assert await broker.admin.groups(topic) == []
        async with broker.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 1)) == ["x"]

    async def _deleted(self, broker: Broker, topic: str) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    return await broker.admin.delete(topic, "g")
                except StateError:
                    await asyncio.sleep(0.2)

    async def test_admin_deletes_a_topic(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, ["1", "2"], key="k")
        await broker.publish(topic, "later", delay=1.0)
        async with broker.subscribe(topic, group="g") as deliveries:
            await take_acked(deliveries, 2)
        await broker.admin.delete(topic)
        await eventually(broker.admin.topics, lambda found: topic not in found)
        await broker.publish(topic, "new", timeout=30)
        async with broker.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 1)) == ["new"]
            await silent(deliveries, 1.2)

    async def test_admin_purges_a_topic(self, broker: Broker, topic: str) -> None:
        async with broker.subscribe(topic, group="g"):
            pass
        await broker.publish_many(topic, [str(n) for n in range(20)])
        await broker.publish(topic, "later", delay=1.0)
        await broker.admin.purge(topic)
        async with broker.subscribe(topic, group="g") as deliveries:
            await broker.publish(topic, "new", timeout=30)
            assert bodies(await take_acked(deliveries, 1)) == ["new"]
            await silent(deliveries, 1.2)

    async def test_admin_declares_a_topic_whose_partitions_are_fixed(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.admin.declare(Topic(topic, partitions=3))
        assert len((await broker.admin.describe(topic)).partitions) == 3
        async with connect(url) as other:
            sharing = other if broker.capabilities.processes else broker
            await sharing.publish(topic, "any number is fine", timeout=30)
            with pytest.raises(ConfigurationError, match="3"):
                await sharing.admin.declare(Topic(topic, partitions=5))
