"""Broadcast: positions that survive a lost source, and dead letters of broadcast readers."""

from __future__ import annotations

from ...broker import Broker
from ...errors import Reject
from ..samples import RecordingListener, contents, nothing, receive
from ..tools import eventually, until
from .base import Base
from .needs import needs
from .sources import QUIET_SECONDS, reading, samples_of, stored


class Broadcast(Base):
    """The rules of `group=None` that groups do not have."""

    async def test_a_new_source_continues_at_the_position_of_the_old_one(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 3, key="k")
        async with reading(driver, samples) as first:
            assert contents(await receive(first, 2)) == [b"0", b"1"]
            position = first.position
        await driver.publish([samples.record(3, key="k")])
        async with reading(driver, samples, position=position) as second:
            assert contents(await receive(second, 2)) == [b"2", b"3"]
            assert await nothing(second, QUIET_SECONDS)
            position = second.position
        for _ in range(2):
            async with reading(driver, samples, position=position) as third:
                assert await nothing(third, QUIET_SECONDS)
                position = third.position

    async def test_a_reader_from_latest_that_has_read_nothing_keeps_its_position(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 2)
        async with reading(driver, samples, start="latest") as first:
            position = first.position
        await driver.publish([samples.record(b"meanwhile")])
        async with reading(driver, samples, start="latest", position=position) as second:
            assert contents(await receive(second, 1)) == [b"meanwhile"]


@needs("admin")
class BroadcastTopics(Base):
    """Broadcast readers whose topic is purged or deleted."""

    async def test_messages_deleted_unread_are_skipped_and_reported_once(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        listener = RecordingListener()
        await stored(driver, samples, 5, key="k")
        async with reading(driver, samples) as first:
            read = await receive(first, 2)
            position = first.position
        await driver.purge(samples.topic())
        second = await driver.subscribe(samples.spec(None, position=position), listener)
        try:
            await driver.publish(samples.records(2, key="k"))
            assert contents(await receive(second, 2)) == [b"0", b"1"]
            assert await nothing(second, QUIET_SECONDS)
        finally:
            await second.aclose()
        if self.harness.says_what_was_skipped:
            ((after, _),) = listener.gaps
            assert after == read[-1].position
        else:
            assert not listener.gaps

    async def test_a_recreated_topic_is_read_from_its_beginning(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 5, key="k")
        async with reading(driver, samples) as first:
            await receive(first, 5)
            position = first.position
        await driver.delete_topic(samples.topic())
        await broker.publish(topic, "new", timeout=30)
        async with reading(driver, samples, position=position) as second:
            assert contents(await receive(second, 1)) == [b"new"]
            assert await nothing(second, QUIET_SECONDS)


@needs("replay")
class BroadcastLetters(Base):
    """Dead letters of broadcast readers."""

    async def test_letters_of_broadcast_are_redriven_to_broadcast_alone(
        self, broker: Broker, topic: str
    ) -> None:
        billed: list[str] = []
        cached: list[str] = []
        letters = broker.admin.dead_letters(topic, None)

        async def bill(body: str) -> None:
            billed.append(body)

        async def cache(body: str) -> None:
            cached.append(body)
            if cached.count(body) == 1:
                raise Reject("not yet")

        async with (
            broker.subscribe(topic, group="billing", handler=bill),
            broker.subscribe(topic, group="audit", ordered=True, handler=bill),
            broker.subscribe(topic, group=None, handler=cache),
        ):
            await broker.publish(topic, "charge")
            await until(lambda: billed == ["charge"] * 2)
            await eventually(letters.count, lambda count: count == 1)
            assert await letters.redrive_all() == 1
            await until(lambda: cached == ["charge"] * 2)
            await broker.publish(topic, "next")
            await until(lambda: billed.count("next") == 2)
        assert billed.count("charge") == 2
