"""Ordered members: what moves has come to an end first, attempts outlive the member."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from anymq.driver import Listener, Nack, OrderedSource, Reader, Received
from anymq.errors import ConfigurationError
from anymq.testing.samples import join_ordered
from anymq_kafka import KafkaDriver
from anymq_kafka.group.member import MemberSource
from tests.adapters.kafka.support import Bench, crash, nothing, numbers, until_committed
from tests.adapters.support import attempt, bodies, eventually, take

pytestmark = pytest.mark.kafka


class Member(Listener):
    """An ordered member, and what it was told to give up."""

    def __init__(self) -> None:
        self.revoked: list[tuple[frozenset[int], bool]] = []
        self.may_go = asyncio.Event()
        self.source: OrderedSource | None = None

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        self.revoked.append((partitions, gone))
        if not gone:
            await self.may_go.wait()

    async def join(
        self, bench: Bench, driver: KafkaDriver, group: str = "billing"
    ) -> OrderedSource:
        spec = replace(bench.spec(group), ordered=True)
        self.source = await join_ordered(driver, spec, self)
        bench._sources.append(self.source)
        return self.source


def kept(bench: Bench, received: Received, shown: int) -> Nack:
    copy = bench.copy(received, shown)
    return Nack(received, 1.0, shown, native_attempt=attempt(received) + 1, copy=copy)


async def test_each_partition_in_its_order(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(n, key=f"k{n % 5}") for n in range(60)])
    received = await take(await Member().join(bench, driver), 60)
    for key in range(5):
        of_key = [item for item in received if item.key == f"k{key}"]
        assert [int(item.body) for item in of_key] == list(range(key, 60, 5))
        assert len({item.partition for item in of_key}) == 1


async def test_attempts_outlive_the_member(bench: Bench, driver: KafkaDriver) -> None:
    await bench.place(0, 1, 2)
    first = await Member().join(bench, driver)
    received = sorted(await take(first, 3), key=lambda item: item.body)
    await first.keep([kept(bench, received[0], 2)])
    await first.keep([kept(bench, received[0], 3), kept(bench, received[1], 2)])
    await first.ack(received[1:2])
    await until_committed(first)
    await crash(first)
    second = await Member().join(bench, driver)
    again = await take(second, 2)
    assert {item.body: attempt(item) for item in again} == {b"0": 3, b"2": 1}
    await second.keep([kept(bench, item, attempt(item) + 1) for item in again])
    await second.aclose()
    third = await Member().join(bench, driver)
    last = await take(third, 2)
    assert {item.body: attempt(item) for item in last} == {b"0": 4, b"2": 2}
    await third.ack(last)
    await third.aclose()
    assert {place.metadata for place in (await bench.committed()).values()} == {""}


async def test_what_is_in_use_moves_when_it_has_come_to_an_end(bench: Bench) -> None:
    driver = await bench.open(partitions=2)
    await bench.place(0, 1)
    one, other, third = Member(), Member(), Member()
    first = await one.join(bench, driver)
    held = await take(first, 2)
    second = await other.join(bench, driver)
    await _until(first, lambda: one.revoked)
    (moving, gone) = one.revoked[0]
    assert len(moving) == 1
    assert not gone
    await driver.publish([bench.record(n, key=str(n)) for n in range(10, 30)])
    # Yet another rebalance must not take it away either.
    await third.join(bench, driver)
    assert await nothing(second, 1.5)
    (finished,) = [item for item in held if item.partition in moving]
    await first.ack([finished])
    one.may_go.set()
    sources = [source for source in (second, third.source) if source is not None]
    received = await _from_any(sources, first, 1)
    assert {item.partition for item in received} == set(moving)
    assert finished.body not in bodies(received), "what was done by its first owner stays done"
    assert not any(gone for _, gone in one.revoked)


async def test_what_has_been_given_up_unfinished_is_repeated_by_its_next_owner(
    bench: Bench,
) -> None:
    driver = await bench.open(partitions=2)
    await bench.place(0, 1)
    one = Member()
    one.may_go.set()
    first = await one.join(bench, driver)
    held = {item.partition: item for item in await take(first, 2)}
    second = await Member().join(bench, driver)
    (again,) = await _from_any([second], first, 1)
    assert again.body == held[again.partition].body
    await first.ack([held[again.partition]])
    await second.ack([again])
    await first.ack(list(held.values()))
    assert await nothing(second, 0.5)


async def test_one_way_at_a_time(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(3))
    source = await bench.join(driver)
    with pytest.raises(ConfigurationError, match="order"):
        await Member().join(bench, driver)
    (first, *rest) = await take(source, 3)
    await source.nack([bench.nack(first, 1.0)])
    await source.ack(rest)
    await source.aclose()
    with pytest.raises(ConfigurationError, match="wait for a retry"):
        await Member().join(bench, driver)
    source = await bench.join(driver)
    await source.ack(await take(source, 1))
    await source.aclose()
    ordered = await Member().join(bench, driver)
    assert isinstance(ordered, MemberSource)
    with pytest.raises(ConfigurationError, match="order"):
        await bench.join(driver)


async def test_who_has_been_lost_is_told(bench: Bench, driver: KafkaDriver) -> None:
    """The coordinator has given its partitions to others: what it still has in hand is theirs."""
    await bench.place(0, 1, 2)
    member = Member()
    source = await member.join(bench, driver)
    held = await take(source, 3)
    assert isinstance(source, MemberSource)
    parts: Any = source._member.consumer
    parts._coordinator.reset_generation()
    await _until(source, lambda: member.revoked)
    assert member.revoked == [(frozenset({0, 1, 2}), True)]
    await source.ack(held)
    assert numbers(await take(source, 3)) == [0, 1, 2]


async def _until(source: Reader, holds: Any) -> None:
    async def polled() -> object:
        await source.receive(10, 0.1)
        return holds()

    await eventually(polled)


async def _from_any(sources: list[Any], busy: Any, count: int) -> list[Received]:
    """Take `count` records from any of `sources`, while `busy` lives on."""
    got: list[Received] = []

    async def enough() -> bool:
        await busy.receive(0, 0)
        for source in sources:
            got.extend(await source.receive(count - len(got), 0.1))
        return len(got) >= count

    await eventually(enough)
    return got
