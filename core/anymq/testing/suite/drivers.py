"""Drivers: repeated calls, mapped names, topics that must not be created."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ...broker import Broker
from ...connect import connect
from ...driver.records import Record
from ...driver.specs import SubscribeSpec, TopicSpec
from ...errors import NotFound
from ...ids import new_id
from ..harness import random_name
from ..samples import join
from ..tools import WAIT_SECONDS, bodies, silent, take_acked, until
from .base import Base


def open_files() -> int:
    """Return the number of open files and connections of this process; 0 without `/proc`."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


class Drivers(Base):
    """Rules of `Driver` and `Source` that an application seldom meets."""

    async def test_a_repeated_publish_is_stored_once(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "first")
        record = Record(topic=topic, id=new_id(), unique=new_id(), body=b"twice")
        for _ in range(2):
            (outcome,) = await broker.driver.publish([record])
            assert not isinstance(outcome, BaseException), outcome
        times = 1 if broker.capabilities.publish_dedup.is_native else 2
        async with broker.subscribe(topic, group="g") as deliveries:
            received = bodies(await take_acked(deliveries, 1 + times))
            assert sorted(received) == ["first"] + ["twice"] * times
            await silent(deliveries, 0.3)

    async def test_declaring_again_changes_nothing(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "kept")
        for _ in range(2):
            await broker.driver.declare(TopicSpec(name=topic, native=topic))
        async with broker.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 1)) == ["kept"]

    async def test_receive_returns_in_time_without_messages(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        source = await join(
            broker.driver,
            SubscribeSpec(
                topic=TopicSpec(name=topic, native=topic),
                group="g",
                native_group=f"{topic}.g",
                start="earliest",
                ack_deadline=30,
                prefetch=10,
                member=new_id(),
            ),
        )
        try:
            for limit, wait, most in ((10, 0.5, 2.5), (0, 0.0, 1.0), (1, 0.0, 1.0)):
                started = time.monotonic()
                assert list(await source.receive(limit, wait)) == []
                assert time.monotonic() - started < most
        finally:
            await source.aclose()
            await source.aclose()

    async def test_a_closed_driver_opens_no_connection(self, url: str, topic: str) -> None:
        """Otherwise a call that runs during the close would leave an open connection."""
        spec = TopicSpec(name=topic, native=topic)
        before = open_files()
        async with connect(url) as broker:
            driver = broker.driver
            await broker.publish(topic, "x")

        async def late(call: Callable[[], Awaitable[object]]) -> None:
            with suppress(Exception):
                await call()

        record = Record(topic=topic, id="1", unique="1", body=b"late")
        calls = (lambda: driver.publish([record]), lambda: driver.declare(spec), driver.ping)
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*map(late, calls))
        await until(lambda: open_files() <= before)

    async def test_a_mapped_topic_reads_and_writes_its_native_topic(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "old")
        logical = random_name("logical")
        async with connect(url, names={logical: topic}) as mapped:
            await mapped.publish(logical, "new")
            async with mapped.subscribe(logical, group="g") as deliveries:
                received = await take_acked(deliveries, 2)
        assert sorted(bodies(received)) == ["new", "old"]
        assert {delivery.topic for delivery in received} == {logical}
        async with broker.subscribe(topic, group="other") as deliveries:
            assert sorted(bodies(await take_acked(deliveries, 2))) == ["new", "old"]

    async def test_a_mapped_topic_is_never_created(self, url: str, topic: str) -> None:
        async with connect(url, names={"orders": topic}) as mapped:
            for _ in range(2):
                with pytest.raises(NotFound):
                    await mapped.publish("orders", "x", timeout=30)
                with pytest.raises(NotFound):
                    await mapped.subscribe("orders", group="g").__aenter__()

    async def test_without_declare_no_topic_is_created(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        query = "&declare=false" if "?" in url else "?declare=false"
        async with connect(url + query) as user:
            with pytest.raises(NotFound, match=topic):
                await user.publish(topic, "x", timeout=30)
            await broker.publish(topic, "made by an operator")
            await user.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            assert sorted(bodies(await take_acked(deliveries, 2))) == ["made by an operator", "x"]
