"""The rules of `Driver` and `Source`, tested on the driver without the core."""

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

QUIET_SECONDS = 0.5
"""Seconds within which an unexpected record would have arrived."""
LEASE = 5.0
"""Seconds after which the next member gets a closed one's records, if closing releases none."""


def samples_of(broker: Broker, topic: str) -> Samples:
    """Return samples for this topic and this backend."""
    samples = Samples(topic)
    samples.id_header = broker.driver.binding.id
    return samples


@asynccontextmanager
async def joined(
    driver: Driver, samples: Samples, group: str = "billing", **values: Any
) -> AsyncIterator[Source]:
    """A source, which is closed at the end."""
    source = await join(driver, samples.spec(group, **values))
    try:
        yield source
    finally:
        await source.aclose()


@asynccontextmanager
async def joined_ordered(
    driver: Driver, samples: Samples, group: str = "billing", **values: Any
) -> AsyncIterator[OrderedSource]:
    """A source of an ordered group, which is closed at the end."""
    source = await join_ordered(driver, samples.spec(group, ordered=True, **values))
    try:
        yield source
    finally:
        await source.aclose()


@asynccontextmanager
async def reading(driver: Driver, samples: Samples, **values: Any) -> AsyncIterator[Reader]:
    """A broadcast reader, which is closed at the end."""
    reader = await read(driver, samples.spec(None, **values))
    try:
        yield reader
    finally:
        await reader.aclose()


async def stored(driver: Driver, samples: Samples, count: int, **values: Any) -> None:
    """Declare the topic, and publish `count` numbers from 0 to it."""
    await driver.declare(samples.topic())
    outcomes = await driver.publish(samples.records(count, **values))
    assert [one for one in outcomes if isinstance(one, BaseException)] == []


class Sources(Base):
    """Reading, settling and publishing, by one member and by several."""

    async def test_receive_returns_at_most_its_limit_each_at_its_own_position(
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

    async def test_settling_no_records_does_nothing(self, broker: Broker, topic: str) -> None:
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
            assert await nothing(source, QUIET_SECONDS)
        async with joined(driver, samples) as source:
            assert await nothing(source, QUIET_SECONDS)

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
        # These calls may also reach the successor of the source that delivered the record.
        await second.ack([stale])
        await second.nack([samples.nack(stale, 3600)])
        await second.extend([stale])
        await second.aclose()
        async with joined(driver, samples, lease=LEASE) as third:
            (back,) = await receive(third, 1)
            assert back.body == held.body
            await third.ack([back])

    async def test_a_nack_delays_counts_and_keeps_the_message(
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
            assert await nothing(other, QUIET_SECONDS)

    async def test_a_release_is_redelivered_uncounted(self, broker: Broker, topic: str) -> None:
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

    async def test_settlement_calls_may_run_concurrently(self, broker: Broker, topic: str) -> None:
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
            assert await nothing(source, QUIET_SECONDS)
        dead = Samples(letters)
        async with joined(driver, dead) as source:
            left = await receive(source, 2)
            assert sorted(contents(left)) == sorted([got[7].body, got[1].body])
            await source.ack(left)

    async def test_unsettled_records_go_to_the_next_member(
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
            assert await nothing(successor, QUIET_SECONDS)

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
            assert await nothing(late, QUIET_SECONDS)

    async def test_publish_returns_one_outcome_per_record_in_order(
        self, broker: Broker, topic: str
    ) -> None:
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

    async def test_many_may_declare_and_subscribe_at_once(
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
    """`describe_group` on ordered groups: the same rules on every backend."""

    async def test_an_ordered_group_is_described_consistently(
        self, broker: Broker, topic: str
    ) -> None:
        samples, driver = samples_of(broker, topic), broker.driver
        await driver.declare(samples.topic(partitions=2))
        await stored(driver, samples, 3)

        async def look() -> GroupInfo:
            return await driver.describe_group(samples.topic(), f"{topic}.billing")

        async with joined_ordered(driver, samples) as source:
            (held,) = await receive(source, 1)
            await source.keep([self._kept(samples, held, shown=2)])
            info = await look()
            assert info.poison in (None, ())  # One attempt is not repeated yet.
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
