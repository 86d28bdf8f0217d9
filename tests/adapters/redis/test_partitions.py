"""Topics of several partitions: their number, the partition of a record, and groups."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from anymq.driver import Reader, partition_of
from anymq.errors import ConfigurationError, NotFound
from anymq_redis import RedisDriver
from tests.adapters.redis.support import Bench
from tests.adapters.support import attempt, bodies, eventually, nothing, take

pytestmark = pytest.mark.redis


async def partitioned(bench: Bench, count: int = 4) -> RedisDriver:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(partitions=count))
    return driver


def place(position: object) -> int:
    return int(str(position).split(":")[0])


async def test_a_key_goes_to_its_partition_and_others_are_spread(bench: Bench) -> None:
    driver = await partitioned(bench)
    keys = [f"key-{number}" for number in range(20)]
    outcomes = await driver.publish([bench.record(key=key) for key in keys])
    assert [place(item) for item in outcomes] == [partition_of(key, 4) for key in keys]
    spread = Counter(map(place, await driver.publish(bench.records(40))))
    assert spread == {0: 10, 1: 10, 2: 10, 3: 10}


async def test_the_count_is_found_by_others_and_cannot_be_changed(bench: Bench) -> None:
    await partitioned(bench)
    other = await bench.open()  # declares without a count
    assert (await other.describe_topic(bench.topic())).partitions[-1].number == 3
    (outcome,) = await other.publish([bench.record(key="k")])
    assert place(outcome) == partition_of("k", 4)
    with pytest.raises(ConfigurationError, match=r"4 partitions, not 2"):
        await other.declare(bench.topic(partitions=2))


async def test_one_count_wins_among_many_that_declare_at_once(bench: Bench) -> None:
    drivers = [await bench.open(declare=False) for _ in range(4)]
    results = await asyncio.gather(
        *(item.declare(bench.topic(partitions=n + 1)) for n, item in enumerate(drivers)),
        return_exceptions=True,
    )
    assert results.count(None) == 1
    assert sum(isinstance(item, ConfigurationError) for item in results) == 3


async def test_a_stream_that_was_there_before_has_one_partition(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.native.xadd(bench.name, {"data": "old"})
    with pytest.raises(ConfigurationError, match=r"1 partitions, not 4"):
        await driver.declare(bench.topic(partitions=4))
    await driver.declare(bench.topic(partitions=1))
    (position,) = await driver.publish([bench.record(b"new", key="k")])
    assert ":" not in str(position)
    source = await bench.join(driver)
    assert bodies(await take(source, 2)) == [b"old", b"new"]


async def test_members_share_all_partitions_and_unsettled_entries_return(bench: Bench) -> None:
    driver = await partitioned(bench)
    first, second = await bench.join(driver), await bench.join(driver, lease=0.3)
    await driver.publish(bench.records(40))
    got = await take(first, 30)
    rest = await take(second, 10)
    assert sorted(bodies(got + rest)) == sorted(b"%d" % n for n in range(40))
    await first.nack([bench.nack(item) for item in got[:5]])
    await first.nack([bench.nack(item, 0.1) for item in got[5:10]])
    await first.release([bench.nack(item, counted=False) for item in got[10:15]])
    await first.reject([bench.rejected(item) for item in got[15:20]], driver.publish)
    await first.ack(got[20:])
    back = await take(first, 15)
    expected = {item.position: 2 if number < 10 else 1 for number, item in enumerate(got[:15])}
    assert {item.position: attempt(item) for item in back} == expected
    await first.ack(back)
    assert await driver.native.xlen(f"{bench.name}.billing.dlq") == 5
    third = await bench.join(driver, lease=3.0)
    crashed = await take(third, 10)  # the second one does not extend
    assert {item.position for item in crashed} == {item.position for item in rest}
    info = await driver.describe_group(bench.topic(), f"{bench.name}.billing")
    assert {(item.position, item.attempts) for item in info.poison or ()} == {
        (item.position, 2) for item in rest
    }
    await third.ack(crashed)
    assert (await driver.describe_group(bench.topic(), f"{bench.name}.billing")).lag == 0


async def test_a_broadcast_reader_gets_every_partition_in_order(bench: Bench) -> None:
    driver = await partitioned(bench, 3)
    await driver.publish([bench.record(number, key=f"k{number % 5}") for number in range(30)])
    late = await bench.join(driver, None, start="latest")
    early = await bench.join(driver, None)
    await driver.publish([bench.record(b"new", key=f"k{number}") for number in range(5)])
    assert len(await take(early, 35)) == 35
    again = await bench.join(driver, None)
    by_key: dict[int, list[int]] = {}
    small: list[bytes] = []
    while len(small) < 35:
        small += bodies(await again.receive(2, 0.5))
    for body in small:
        if body != b"new":
            by_key.setdefault(int(body) % 5, []).append(int(body))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert bodies(await take(late, 5)) == [b"new"] * 5
    assert await nothing(late)


async def test_little_credit_starves_no_partition(bench: Bench) -> None:
    driver = await partitioned(bench, 4)
    source = await bench.join(driver, None)
    await driver.publish(bench.records(400))
    seen = Counter[int]()
    for _ in range(40):
        seen.update(item.partition for item in await source.receive(1, 0.5))
    assert len(seen) == 4


async def test_letters_go_where_their_topic_has_them(bench: Bench) -> None:
    driver = await partitioned(bench, 2)
    letters = f"{bench.name}.billing.dlq"
    await driver.declare(bench.topic(letters, partitions=3))
    source = await bench.join(driver)
    await driver.publish([bench.record(key="k")])
    (item,) = await take(source, 1)
    rejected = bench.rejected(item)
    rejected.letter.key = "another"
    await source.reject([rejected], driver.publish)
    reader = await bench.join(driver, None, topic=bench.topic(letters))
    (letter,) = await take(reader, 1)
    assert letter.partition == partition_of("another", 3)


async def test_a_publisher_notices_that_the_topic_was_recreated(bench: Bench) -> None:
    driver, other = await partitioned(bench, 4), await bench.open()
    await other.publish([bench.record(key="k")])
    await driver.delete_topic(bench.topic())
    (outcome,) = await other.publish([bench.record(key="k")])
    assert isinstance(outcome, NotFound)  # the core declares it again then
    await driver.declare(bench.topic(partitions=2))
    await other.declare(bench.topic())
    (outcome,) = await other.publish([bench.record(key="k")])
    assert place(outcome) == partition_of("k", 2)


async def test_a_lost_partition_is_made_again(bench: Bench) -> None:
    driver = await partitioned(bench, 2)
    source: Reader = await bench.join(driver)
    await driver.native.delete(f"{{{bench.name}}}._p1")
    await driver.publish(bench.records(4))
    got: list[bytes] = []

    async def all_there() -> bool:
        got.extend(bodies(await source.receive(10, 0.2)))
        return len(got) >= 4

    await eventually(all_there)
    assert sorted(got) == [b"0", b"1", b"2", b"3"]
