"""Rules of both embedded drivers: delays, clocks, partitions, replay, admin, ordered groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anymq.driver import (
    Driver,
    OrderedSource,
    Received,
    SourceLost,
    Start,
    TopicSpec,
    partition_of,
)
from anymq.errors import ConfigurationError, NotFound, StateError
from anymq.testing.samples import join, join_ordered
from anymq.testing.tools import set_wall_clock
from tests.adapters.support import Bench, attempt, bodies, eventually, nothing, take

HOUR = 3600.0


async def browsed(driver: Driver, topic: TopicSpec, start: Start = "earliest") -> list[Received]:
    return [item for page in [p async for p in driver.browse(topic, start)] for item in page]


class Delays:
    """Delayed records."""

    async def test_it_comes_when_it_is_due_and_never_earlier(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        group, reader = await bench.join(driver), await bench.join(driver, None)
        due = time.time() + 0.3
        outcomes = await driver.publish(
            [bench.record(b"late", deliver_at=due), bench.record(b"now")]
        )
        assert outcomes[0] is None
        for source in (group, reader):
            assert bodies(await take(source, 1)) == [b"now"]
        for source in (group, reader):
            (got,) = await take(source, 1)
            assert time.time() >= due
            assert got.body == b"late"
            assert got.time is not None
            assert got.time >= due

    async def test_a_message_that_is_already_due_is_delivered_at_once(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        source = await bench.join(driver)
        await driver.publish([bench.record(b"x", deliver_at=time.time() - 1)])
        assert bodies(await source.receive(1, 0.0)) == [b"x"]

    async def test_they_come_in_the_order_in_which_they_are_due(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        now = time.time()
        await driver.publish(
            [bench.record(n, key="k", deliver_at=now + 0.5 - n / 20) for n in range(8)]
        )
        source = await bench.join(driver)
        assert bodies(await take(source, 8)) == [b"%d" % n for n in range(7, -1, -1)]

    async def test_a_group_made_before_or_after_they_are_due_gets_them(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        await driver.publish([bench.record(b"x", deliver_at=time.time() + 0.2)])
        latest = await bench.join(driver, "latest", start="latest")
        assert bodies(await take(latest, 1)) == [b"x"]
        after = await bench.join(driver, "after")
        assert bodies(await take(after, 1)) == [b"x"]

    async def test_thousands_do_not_hold_up_what_is_live(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        far = time.time() + 14 * 24 * HOUR
        for _ in range(5):
            await driver.publish([bench.record(n, deliver_at=far) for n in range(500)])
        source = await bench.join(driver)
        await driver.publish([bench.record(b"live")])
        assert bodies(await take(source, 1)) == [b"live"]
        assert (await driver.describe_topic(bench.topic())).delayed == 2500

    async def test_a_delay_may_exceed_the_retention(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        await driver.declare(bench.topic(retention=0.1))
        await driver.publish([bench.record(b"x", deliver_at=time.time() + 0.4)])
        source = await bench.join(driver)
        assert bodies(await take(source, 1)) == [b"x"]


class Clocks:
    """Steps of the wall clock."""

    @pytest.mark.parametrize("step", [60.0, -60.0, 3600.0])
    async def test_setting_the_wall_clock_ends_no_lease(
        self, bench: Bench[Any], driver: Driver, monkeypatch: pytest.MonkeyPatch, step: float
    ) -> None:
        holder, other = await bench.join(driver), await bench.join(driver)
        await driver.publish(bench.records(2))
        held = await take(holder, 2)
        set_wall_clock(monkeypatch, step)
        assert await nothing(other)
        await holder.extend(held[:1])
        set_wall_clock(monkeypatch, 0.0)
        assert await nothing(other)
        await holder.ack(held)
        assert (await driver.describe_group(bench.topic(), f"{bench.name}.billing")).lag == 0

    @pytest.mark.parametrize("step", [60.0, -60.0])
    async def test_a_lease_ends_in_its_time(
        self, bench: Bench[Any], driver: Driver, monkeypatch: pytest.MonkeyPatch, step: float
    ) -> None:
        holder, other = await bench.join(driver, lease=0.3), await bench.join(driver)
        await driver.publish(bench.records(1))
        await take(holder, 1)
        set_wall_clock(monkeypatch, step)
        assert [attempt(item) for item in await take(other, 1)] == [2]

    async def test_a_retry_is_not_early_when_the_clock_is_set_back(
        self, bench: Bench[Any], driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = await bench.join(driver)
        await driver.publish(bench.records(1))
        (got,) = await take(source, 1)
        began = time.monotonic()
        await source.nack([bench.nack(got, delay=0.5)])
        set_wall_clock(monkeypatch, -60.0)
        await take(source, 1)
        assert time.monotonic() - began >= 0.5


class Partitions:
    """Topics of several partitions."""

    async def test_a_key_has_its_partition_and_the_rest_goes_round(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        four = bench.topic("four", partitions=4)
        await driver.declare(four)
        keys = [f"k{n}" for n in range(20)]
        await driver.publish([bench.record(name="four", key=key) for key in keys])
        await driver.publish([bench.record(n, name="four") for n in range(8)])
        found = await browsed(driver, four)
        assert [item.partition for item in found[:20]] == [partition_of(key, 4) for key in keys]
        assert sorted(item.partition for item in found[20:]) == sorted([0, 1, 2, 3] * 2)

    async def test_the_count_is_found_out_and_another_one_refused(self, bench: Bench[Any]) -> None:
        one, two = await bench.open(), await bench.open()
        await one.declare(bench.topic("four", partitions=4))
        await two.declare(bench.topic("four"))
        assert len((await two.describe_topic(bench.topic("four"))).partitions) == 4
        await two.publish([bench.record(name="four", key="k")])
        (got,) = await browsed(one, bench.topic("four"))
        assert got.partition == partition_of("k", 4)
        with pytest.raises(ConfigurationError, match=r"4 partitions, not 3"):
            await two.declare(bench.topic("four", partitions=3))

    async def test_groups_and_readers_get_all_of_them(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        four = bench.topic("four", partitions=4)
        await driver.declare(four)
        group = await bench.join(driver, topic=four)
        reader = await bench.join(driver, None, topic=four)
        await driver.publish([bench.record(n, name="four", key=f"k{n}") for n in range(20)])
        expected = [b"%d" % n for n in range(20)]
        assert bodies(await take(reader, 20)) == expected
        got = await take(group, 20)
        assert bodies(got) == expected
        await group.nack([bench.nack(got[7])])
        await group.ack([*got[:7], *got[8:]])
        (again,) = await take(group, 1)
        assert (again.body, again.partition) == (b"7", got[7].partition)


class Replay:
    """Start positions, `seek` and `browse`."""

    async def test_a_group_and_a_reader_begin_at_a_position(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        outcomes = await driver.publish(bench.records(5))
        for group in ("g", None):
            source = await bench.join(driver, group, start=str(outcomes[3]))
            assert bodies(await take(source, 2)) == [b"3", b"4"]
        again = await bench.join(driver, "g2", start=str(outcomes[4]))
        assert bodies(await take(again, 1)) == [b"4"]

    async def test_at_a_time(self, bench: Bench[Any], driver: Driver) -> None:
        await driver.publish(bench.records(2))
        await driver.publish([bench.record(b"due", deliver_at=time.time() + 0.05)])
        source = await bench.join(driver, "all")
        got = await take(source, 3)
        assert got[2].time is not None
        moment = datetime.fromtimestamp(got[2].time, UTC) - timedelta(milliseconds=1)
        for group in ("g", None):
            source = await bench.join(driver, group, start=moment)
            assert bodies(await take(source, 1)) == [b"due"]
        source = await bench.join(driver, "later", start=moment + timedelta(hours=1))
        assert await nothing(source)

    @pytest.mark.parametrize("start", ["x", "", "-1", "1.5", "9" * 5000], ids=range(5))
    async def test_a_malformed_start(self, bench: Bench[Any], driver: Driver, start: Start) -> None:
        for group in ("g", None):
            with pytest.raises(ConfigurationError):
                await bench.join(driver, group, start=start)
        assert await driver.groups(bench.topic()) == []

    async def test_seek_begins_anew(self, bench: Bench[Any], driver: Driver) -> None:
        source = await join(driver, bench.spec("g"))
        outcomes = await driver.publish(bench.records(4))
        got = await take(source, 4)
        await source.ack(got[:2])
        await source.nack([bench.nack(got[2], HOUR)])
        topic, group = bench.topic(), f"{bench.name}.g"
        with pytest.raises(StateError):
            await driver.seek(topic, group, "earliest")
        await source.aclose()
        with pytest.raises(NotFound):
            await driver.seek(topic, "nobody", "earliest")
        with pytest.raises(ConfigurationError):
            await driver.seek(topic, group, "nowhere")
        places: list[tuple[Start, Sequence[bytes]]] = [
            ("earliest", [b"0", b"1", b"2", b"3"]),
            (str(outcomes[1]), [b"1", b"2", b"3"]),
            ("latest", []),
        ]
        for to, expected in places:
            await driver.seek(topic, group, to)
            source = await join(driver, bench.spec("g"))
            got = await take(source, len(expected))
            assert bodies(got) == expected
            assert all(item.redeliveries == 0 for item in got)
            assert await nothing(source)
            await source.aclose()

    async def test_browsing_settles_nothing_and_ends(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        outcomes = await driver.publish(bench.records(1200))
        await driver.publish([bench.record(b"later", deliver_at=time.time() + HOUR)])
        seen = []
        async for page in driver.browse(bench.topic(), str(outcomes[10])):
            await driver.publish([bench.record(b"meanwhile")])
            seen += [int(item.body) for item in page]
        assert seen == list(range(10, 1200))
        with pytest.raises(NotFound):
            await browsed(driver, bench.topic("nowhere"))


class Admin:
    """Listing, describing and deleting topics and groups."""

    async def test_topics_and_groups_are_listed(self, bench: Bench[Any], driver: Driver) -> None:
        await driver.declare(bench.topic("another"))
        assert await driver.topics() == ["another", bench.name]
        await bench.join(driver, "b")
        await bench.join(driver, "a")
        assert await driver.groups(bench.topic()) == [f"{bench.name}.a", f"{bench.name}.b"]
        with pytest.raises(NotFound):
            await driver.groups(bench.topic("nowhere"))

    async def test_a_topic_is_described(self, bench: Bench[Any], driver: Driver) -> None:
        spec = bench.topic("four", partitions=4, retention=HOUR, retention_bytes=10**6)
        await driver.declare(spec)
        empty = await driver.describe_topic(spec)
        assert (empty.messages, empty.bytes, empty.oldest, empty.delayed) == (0, 0, None, 0)
        before = time.time()
        records = [bench.record(b"12345", name="four", key="k") for _ in range(3)]
        outcomes = await driver.publish(records)
        await driver.publish([bench.record(name="four", deliver_at=time.time() + HOUR)])
        info = await driver.describe_topic(spec)
        assert (info.native, info.messages, info.bytes) == ("four", 3, 15)
        assert (info.retention, info.retention_bytes, info.delayed) == (HOUR, 10**6, 1)
        assert info.oldest is not None
        assert before - 1 <= info.oldest.timestamp() <= time.time()
        assert [part.number for part in info.partitions] == [0, 1, 2, 3]
        part = info.partitions[partition_of("k", 4)]
        assert (part.messages, part.first, part.last) == (3, outcomes[0], outcomes[2])
        with pytest.raises(NotFound):
            await driver.describe_topic(bench.topic("nowhere"))

    async def test_a_group_is_described(self, bench: Bench[Any], driver: Driver) -> None:
        spec = bench.spec("g")
        source = await join(driver, spec)
        outcomes = await driver.publish(bench.records(6))
        got = await take(source, 4)
        await source.ack(got[:1])
        await source.nack([bench.nack(got[1], HOUR), bench.nack(got[2])])
        (again,) = await take(source, 1)
        assert again.redeliveries == 1
        info = await driver.describe_group(bench.topic(), spec.native_group)
        assert info.native == spec.native_group
        assert (info.lag, info.in_flight, info.waiting, info.ordered) == (5, 2, 1, False)
        assert info.lag_seconds is not None
        assert 0 <= info.lag_seconds < 30
        assert info.oldest_pending is not None
        assert 0 <= info.oldest_pending < 30
        assert info.members is not None
        assert [(member.name, member.in_flight) for member in info.members] == [(spec.member, 2)]
        assert info.poison is not None
        assert {item.position: item.attempts for item in info.poison} == {outcomes[2]: 2}
        with pytest.raises(NotFound):
            await driver.describe_group(bench.topic(), "nobody")
        await source.aclose()
        info = await driver.describe_group(bench.topic(), spec.native_group)
        assert (info.members, info.in_flight) == ((), 0)

    async def test_a_deleted_topic_is_gone_with_its_groups(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        group, reader = await bench.join(driver), await bench.join(driver, None)
        later = bench.record(b"later", deliver_at=time.time() + 0.1)
        await driver.publish([bench.record(b"x"), later])
        await driver.delete_topic(bench.topic())
        await driver.delete_topic(bench.topic())
        for source in (group, reader):
            with pytest.raises(SourceLost):
                await source.receive(1, 0.2)
        assert await driver.topics() == []
        (outcome,) = await driver.publish([bench.record()])
        assert isinstance(outcome, NotFound)
        await driver.declare(bench.topic(partitions=2))
        source = await bench.join(driver)
        assert await nothing(source, 0.2)

    async def test_a_deleted_group_begins_anew(self, bench: Bench[Any], driver: Driver) -> None:
        topic, group = bench.topic(), f"{bench.name}.g"
        source = await join(driver, bench.spec("g"))
        await driver.publish(bench.records(2))
        await source.ack(await take(source, 2))
        with pytest.raises(StateError):
            await driver.delete_group(topic, group)
        await source.aclose()
        for _ in range(2):
            await driver.delete_group(topic, group)
        assert await driver.groups(topic) == []
        source = await bench.join(driver, "g")
        assert bodies(await take(source, 2)) == [b"0", b"1"]

    async def test_a_purge_takes_everything_and_the_topic_goes_on(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        source = await bench.join(driver)
        await driver.publish(bench.records(4))
        got = await take(source, 3)
        await source.nack([bench.nack(got[0]), bench.nack(got[1], 0.2)])
        later = bench.record(b"later", deliver_at=time.time() + 0.2)
        await driver.publish([later])
        await driver.purge(bench.topic())
        assert await nothing(source, 0.4)
        await source.ack(got[2:])
        info = await driver.describe_topic(bench.topic())
        assert (info.messages, info.bytes, info.delayed) == (0, 0, 0)
        state = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
        assert (state.lag, state.in_flight, state.waiting) == (0, 0, 0)
        await driver.publish([bench.record(b"new")])
        assert bodies(await take(source, 1)) == [b"new"]


class Ordered:
    """Ordered groups."""

    async def join(self, bench: Bench[Any], driver: Driver, **values: Any) -> OrderedSource:
        spec = replace(bench.spec("g", **values), ordered=True)
        source = await join_ordered(driver, spec)
        bench._sources.append(source)
        return source

    async def test_members_share_the_partitions_and_keep_the_order(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        four = bench.topic("four", partitions=4)
        await driver.declare(four)
        members = [await self.join(bench, driver, topic=four) for _ in range(2)]

        async def spread() -> bool:
            for member in members:
                await member.receive(1, 0.05)
            info = await driver.describe_group(four, "four.g")
            owned = [item.partitions or () for item in info.members or ()]
            return sorted(len(numbers) for numbers in owned) == [2, 2]

        await eventually(spread)
        await driver.publish([bench.record(n, name="four", key=f"k{n % 16}") for n in range(200)])
        shares: list[list[Received]] = [[], []]
        while sum(map(len, shares)) < 200:
            for member, share in zip(members, shares, strict=True):
                got = list(await member.receive(20, 0.2))
                await member.ack(got)
                share += got
        seen = [{item.partition for item in share} for share in shares]
        assert not seen[0] & seen[1]
        for share in shares:
            for key in {item.key for item in share}:
                of_key = [int(item.body) for item in share if item.key == key]
                assert of_key == sorted(of_key)

    async def test_unsettled_messages_of_a_member_go_to_the_next_one(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        await driver.publish(bench.records(6, key="k"))
        first = await self.join(bench, driver)
        got = await take(first, 4)
        await first.ack([got[0], got[2]])
        await first.keep([bench.nack(got[1])])
        await first.aclose()
        second = await self.join(bench, driver)
        got = await take(second, 4)
        assert bodies(got) == [b"1", b"3", b"4", b"5"]
        assert got[0].redeliveries == 1

    async def test_a_group_is_ordered_or_not_for_ever(
        self, bench: Bench[Any], driver: Driver
    ) -> None:
        await self.join(bench, driver)
        with pytest.raises(ConfigurationError, match="ordered"):
            await join(driver, bench.spec("g"))
        await bench.join(driver, "plain")
        with pytest.raises(ConfigurationError, match="ordered"):
            await join_ordered(driver, replace(bench.spec("plain"), ordered=True))

    async def test_it_is_described_and_moved(self, bench: Bench[Any], driver: Driver) -> None:
        topic, name = bench.topic(), f"{bench.name}.g"
        outcomes = await driver.publish(bench.records(6, key="k"))
        source = await self.join(bench, driver)
        got = await take(source, 3)
        await source.ack(got[1:2])
        info = await driver.describe_group(topic, name)
        assert (info.ordered, info.lag, info.in_flight, info.waiting) == (True, 5, 2, 0)
        assert info.members is not None
        assert [item.partitions for item in info.members] == [(0,)]
        assert info.partitions is not None
        assert (info.partitions[0].lag, info.partitions[0].owner) == (5, info.members[0].name)
        for call in (driver.seek(topic, name, "earliest"), driver.delete_group(topic, name)):
            with pytest.raises(StateError):
                await call
        await source.aclose()
        await driver.seek(topic, name, str(outcomes[4]))
        source = await self.join(bench, driver)
        assert bodies(await take(source, 2)) == [b"4", b"5"]
        await source.aclose()
        await driver.delete_group(topic, name)
        assert await driver.groups(topic) == []
        source = await self.join(bench, driver, start="latest")
        assert await nothing(source, 0.1)
        await driver.delete_topic(topic)
        with pytest.raises(SourceLost):
            await source.receive(1, 1.0)

    async def test_a_purge_leaves_nothing_to_read(self, bench: Bench[Any], driver: Driver) -> None:
        source = await self.join(bench, driver)
        await driver.publish(bench.records(3, key="k"))
        await source.ack((await take(source, 2))[:1])
        await driver.purge(bench.topic())
        await driver.publish([bench.record(b"new", key="k")])
        assert bodies(await take(source, 1)) == [b"new"]


class Embedded(Delays, Clocks, Partitions, Replay, Admin, Ordered):
    """All rules; each backend has its own fixtures `bench` and `driver`."""
