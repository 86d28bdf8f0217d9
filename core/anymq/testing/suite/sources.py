"""The rules of `Driver` and `Source`, asked of the driver itself: no engine stands in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ...broker import Broker
from ...connect import connect
from ...driver.base import Driver
from ...driver.info import GroupInfo
from ...driver.records import Nack, Received
from ...driver.source import OrderedSource, Reader, Source
from ...errors import NotFound, translate
from ..samples import Samples, attempt, contents, join, join_ordered, nothing, read, receive
from ..tools import eventually
from .base import Base
from .needs import needs

QUIET = 0.5
"""Seconds in which a record that must not come would have come."""
LEASE = 5.0
"""Seconds after which a closed member's records go to the next one, where closing gives none back.
"""


def samples_of(broker: Broker, topic: str) -> Samples:
    """Return samples for this topic and this backend."""
    samples = Samples(topic)
    samples.id_header = broker.driver.binding.id
    return samples


@asynccontextmanager
async def joined(
    driver: Driver, samples: Samples, group: str = "billing", **values: Any
) -> AsyncIterator[Source]:
    """Open a source, and close it at the end."""
    source = await join(driver, samples.spec(group, **values))
    try:
        yield source
    finally:
        await source.aclose()


@asynccontextmanager
async def joined_ordered(
    driver: Driver, samples: Samples, group: str = "billing", **values: Any
) -> AsyncIterator[OrderedSource]:
    """Open a source of an ordered group, and close it at the end."""
    source = await join_ordered(driver, samples.spec(group, ordered=True, **values))
    try:
        yield source
    finally:
        await source.aclose()


@asynccontextmanager
async def reading(driver: Driver, samples: Samples, **values: Any) -> AsyncIterator[Reader]:
    """Open a broadcast reader, and close it at the end."""
    reader = await read(driver, samples.spec(None, **values))
    try:
        yield reader
    finally:
        await reader.aclose()


async def stored(driver: Driver, samples: Samples, count: int, **values: Any) -> None:
    """Declare the topic, and publish the numbers from 0 on to it."""
    await driver.declare(samples.topic())
    outcomes = await driver.publish(samples.records(count, **values))
    assert [one for one in outcomes if isinstance(one, BaseException)] == []


class Sources(Base):
    """Settlement in any order and any mix, by one member and by another."""

    async def test_no_more_than_asked_for_and_each_at_its_own_position(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 7)
        async with joined(driver, samples) as source:
            got: list[Received] = []
            while len(got) < 7:
                some = await source.receive(2, 1.0)
                assert len(some) <= 2
                got += some
            assert sorted(contents(got)) == [b"%d" % n for n in range(7)]
            assert len({record.position for record in got}) == 7
            assert [attempt(record) for record in got] == [1] * 7
            await source.ack(got)

    async def test_settling_nothing_is_nothing(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 1)
        async with joined(driver, samples) as source:
            await source.ack([])
            await source.nack([])
            await source.release([])
            await source.reject([], driver.publish)
            await source.extend([])
            await source.ack(await receive(source, 1))

    async def test_settlement_may_be_repeated(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 2)
        async with joined(driver, samples) as source:
            kept, done = await receive(source, 2)
            await source.ack([done])
            await source.ack([done])
            await source.nack([samples.nack(done)])
            await source.release([samples.nack(done, counted=False)])
            await source.extend([done])
            for _ in range(2):
                await source.nack([samples.nack(kept)])
            (again,) = await receive(source, 1)
            assert (again.body, attempt(again)) == (kept.body, 2)
            await source.nack([samples.nack(kept)])
            await source.ack([kept])
            await source.ack([again])
            assert await nothing(source, QUIET)
        async with joined(driver, samples) as source:
            assert await nothing(source, QUIET)

    async def test_a_stale_token_settles_nothing_of_the_next_member(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 1)
        first = await join(driver, samples.spec(lease=LEASE))
        (stale,) = await receive(first, 1)
        await first.aclose()
        second = await join(driver, samples.spec(lease=LEASE))
        (held,) = await receive(second, 1)
        # As a source may be asked that another has replaced, on one connection.
        await second.ack([stale])
        await second.nack([samples.nack(stale, 3600)])
        await second.extend([stale])
        await second.aclose()
        async with joined(driver, samples, lease=LEASE) as third:
            (back,) = await receive(third, 1)
            assert back.body == held.body
            await third.ack([back])

    async def test_a_nack_waits_shows_its_attempt_and_keeps_the_message(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 1, headers={"color": "blue"})
        async with (
            joined(driver, samples) as source,
            joined(driver, samples, "audit") as other,
        ):
            await other.ack(await receive(other, 1))
            (record,) = await receive(source, 1)
            started = time.monotonic()
            await source.nack([samples.nack(record, 1.0)])
            (back,) = await receive(source, 1)
            assert time.monotonic() - started >= 1.0
            assert (back.body, attempt(back)) == (b"0", 2)
            assert back.headers["color"] == "blue"
            assert back.headers[samples.id_header] == record.headers[samples.id_header]
            await source.ack([back])
            assert await nothing(other, QUIET)

    async def test_a_release_comes_back_uncounted(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 1)
        async with joined(driver, samples) as source:
            (record,) = await receive(source, 1)
            await source.nack([samples.nack(record)])
            (second,) = await receive(source, 1)
            await source.release([samples.nack(second, counted=False)])
            (third,) = await receive(source, 1)
            assert [attempt(one) for one in (record, second, third)] == [1, 2, 2]
            await source.ack([third])

    async def test_any_mix_at_the_same_time(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        letters = f"{topic}.billing.dlq"
        await driver.declare(samples.topic(letters))
        await stored(driver, samples, 8)
        async with joined(driver, samples) as source:
            got = await receive(source, 8)
            back, *_ = await asyncio.gather(
                source.receive(10, 1.0),
                source.ack([got[5], got[0]]),
                source.nack([samples.nack(got[6]), samples.nack(got[2])]),
                source.reject([samples.rejected(got[7]), samples.rejected(got[1])], driver.publish),
                source.extend([got[4]]),
            )
            back = [*back, *await receive(source, 2 - len(back))]
            assert {one.body: attempt(one) for one in back} == {got[6].body: 2, got[2].body: 2}
            await source.ack([*back, got[3], got[4]])
            assert await nothing(source, QUIET)
        dead = Samples(letters)
        async with joined(driver, dead) as source:
            left = await receive(source, 2)
            assert sorted(contents(left)) == sorted([got[7].body, got[1].body])
            await source.ack(left)

    async def test_what_is_unsettled_goes_to_the_next_member(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 3)
        source = await join(driver, samples.spec(lease=LEASE))
        got = await receive(source, 3)
        await source.ack(got[:1])
        await source.aclose()
        await source.aclose()
        async with joined(driver, samples, lease=LEASE) as successor:
            left = await receive(successor, 2)
            assert sorted(contents(left)) == sorted(contents(got[1:]))
            await successor.ack(left)
            assert await nothing(successor, QUIET)

    async def test_a_broadcast_source_only_reads(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await stored(driver, samples, 2)
        async with (
            reading(driver, samples) as one,
            reading(driver, samples) as two,
            reading(driver, samples, start="latest") as late,
        ):
            await stored(driver, samples, 1)
            for source in (one, two):
                assert sorted(contents(await receive(source, 3))) == [b"0", b"0", b"1"]
            assert contents(await receive(late, 1)) == [b"0"]
            assert await nothing(late, QUIET)

    async def test_outcomes_are_in_order_and_each_its_own(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await driver.declare(samples.topic())
        absent = f"{topic}.absent"
        await driver.declare(samples.topic(absent, create=False))
        batch = [samples.record(n, name=absent if n == 1 else None) for n in range(3)]
        first, missing, last = await driver.publish(batch)
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)
        assert isinstance(missing, BaseException)
        error = translate(missing, driver.errors, doing="publish", where=absent)
        assert isinstance(error, NotFound)
        assert list(await driver.publish([])) == []
        async with joined(driver, samples) as source:
            got = await receive(source, 2)
            assert sorted(contents(got)) == [b"0", b"2"]
            await source.ack(got)

    async def test_declared_and_joined_by_many_at_once(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        samples = samples_of(broker, topic)
        async with connect(url) as other:
            drivers = [
                broker.driver,
                other.driver if broker.capabilities.processes else broker.driver,
            ]
            await asyncio.gather(*(each.declare(samples.topic()) for each in drivers * 2))
            sources = await asyncio.gather(*(join(each, samples.spec()) for each in drivers * 2))
            try:
                await stored(drivers[0], samples, 4)
                got: list[Received] = []
                async with asyncio.timeout(60):
                    while len(got) < 4:
                        for source in sources:
                            some = await source.receive(4, 0.2)
                            await source.ack(some)
                            got += some
                assert sorted(contents(got)) == [b"%d" % n for n in range(4)]
            finally:
                await asyncio.gather(*(source.aclose() for source in sources))


@needs("ordered")
@needs("admin")
class OrderedGroups(Base):
    """What `describe_group` says of an ordered group: the same on every backend."""

    async def test_an_ordered_group_is_described_alike(self, broker: Broker, topic: str) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await driver.declare(samples.topic(partitions=2))
        await stored(driver, samples, 3)

        async def look() -> GroupInfo:
            return await driver.describe_group(samples.topic(), f"{topic}.billing")

        async with joined_ordered(driver, samples) as source:
            (held,) = await receive(source, 1)
            await source.keep([self._kept(samples, held, shown=2)])
            info = await look()
            assert info.poison in (None, ())  # Tried once is not more than once.
            await source.keep([self._kept(samples, held, shown=3)])
            info = await eventually(look, lambda found: found.poison is None or found.poison)
            self._consistent(info)
            for poison in info.poison or ():
                assert (poison.position, poison.attempts) == (held.position, 2)
                assert poison.member is None or poison.member in self._owners(info)
            left = [held, *await receive(source, 2)]
            await source.ack(left)
            info = await eventually(look, lambda found: found.lag in (None, 0))
            self._consistent(info)
            assert info.poison in (None, ())

    def _kept(self, samples: Samples, record: Received, *, shown: int) -> Nack:
        return Nack(record, 0.0, shown, native_attempt=2, copy=samples.copy(record, shown))

    def _owners(self, info: GroupInfo) -> set[str | None]:
        return {partition.owner for partition in info.partitions or ()}

    def _consistent(self, info: GroupInfo) -> None:
        assert info.ordered in (None, True)
        assert info.waiting in (None, 0)
        assert info.partitions is None or [one.number for one in info.partitions] == [0, 1]
        for partition in info.partitions or ():
            assert (partition.messages, partition.first, partition.last) == (None, None, None)
        if info.members is None:
            return
        names = [member.name for member in info.members]
        assert len(names) == 1
        assert names == sorted(names)
        assert self._owners(info) <= {None, *names}
        for member in info.members:
            owned = [one.number for one in info.partitions or () if one.owner == member.name]
            assert member.partitions is None or list(member.partitions) in (owned, [0, 1])
