"""Delays: never early, survive everything, hold nobody up."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import Rejected
from anymq_kafka import KafkaDriver
from anymq_kafka.client.compat import TopicPartition
from anymq_kafka.client.internals import committed
from anymq_kafka.delays import RANGES, retry_topic_for, retry_topics
from anymq_kafka.source import GroupSource
from tests.adapters.kafka.support import Bench, crash, nothing, numbers, until_committed, until_gone
from tests.adapters.support import attempt, bodies, eventually, take

names = st.from_regex(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9][A-Za-z0-9_-]{0,20})*", fullmatch=True
)


@given(names | st.text(min_size=1, max_size=300), names)
def test_retry_topics_are_legal_and_the_groups_own(one: str, other: str) -> None:
    topics = retry_topics(one)
    assert len(set(topics)) == len(RANGES)
    for topic in topics:
        assert len(topic) <= 249
        assert set(topic) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
        )
        # No name of a user's has a segment that begins with an underscore.
        assert any(segment.startswith("_") for segment in topic.split("."))
    if one != other:
        flat = {topic.replace(".", "_") for topic in topics}
        assert not flat & {topic.replace(".", "_") for topic in retry_topics(other)}


def test_retry_topics_that_would_collide_do_not() -> None:
    assert retry_topics("orders.billing")[0] == "orders.billing._retry.5s"
    flat = [retry_topics(name)[0].replace(".", "_") for name in ("a.b_c", "a.b.c", "a_b.c")]
    assert len(set(flat)) == 3


def test_each_delay_has_its_topic() -> None:
    topics = retry_topics("o.b")
    found = [retry_topic_for(topics, delay) for delay in (0, 5, 5.1, 61, 1e4, 1e9)]
    names = [topic.rpartition(".")[2] for topic in found]
    assert names == ["5s", "5s", "1m", "15m", "long", "long"]


@pytest.mark.kafka
async def test_each_comes_back_in_its_time(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(6, headers={"x": "ä"}))
    source = await bench.join(driver)
    delays = {b"0": 2.0, b"1": 0.0, b"2": 1.0, b"3": 5.5, b"4": 0.3, b"5": 0.0}
    received = await take(source, 6)
    started = time.monotonic()
    await source.nack([bench.nack(item, delays[item.body]) for item in received])
    for _ in range(6):
        (again,) = await take(source, 1)
        late = time.monotonic() - started - delays[again.body]
        assert 0 <= late < 4.0
        assert attempt(again) == 2
        assert again.headers["x"] == "ä"
        assert "anymq-due" not in again.headers
        await source.ack([again])
    assert await nothing(source, 0.3)


@pytest.mark.kafka
async def test_what_waits_is_neither_early_nor_lost_when_the_member_dies(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(10))
    first = await bench.join(driver)
    started = time.monotonic()
    await first.nack([bench.nack(item, 3.0) for item in await take(first, 10)])
    await until_committed(first)
    await crash(first)
    second = await bench.join(driver)
    again = await take(second, 10)
    assert time.monotonic() - started >= 3.0
    assert {attempt(item) for item in again} == {2}
    assert numbers(again) == list(range(10))


@pytest.mark.kafka
async def test_a_retry_that_was_acked_before_an_older_one_is_not_repeated(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(2))
    first = await bench.join(driver)
    received = await take(first, 2)
    slow, quick = sorted(received, key=lambda item: item.body)
    await first.nack([bench.nack(slow, 4.0)])
    await first.nack([bench.nack(quick, 0.0)])
    await first.ack(await take(first, 1))
    await until_committed(first)
    await crash(first)
    second = await bench.join(driver)
    assert bodies(await take(second, 1)) == [slow.body]
    assert await nothing(second, 0.5)


@pytest.mark.kafka
async def test_a_window_full_of_waiting_messages(bench: Bench) -> None:
    """Beyond the window later ones wait, and none is early or lost."""
    driver = await bench.open(partitions=1, retry_window=5)
    await driver.publish(bench.records(30))
    source = await bench.join(driver)
    started = time.monotonic()
    await source.nack([bench.nack(item, 1.0) for item in await take(source, 30)])
    assert numbers(await take(source, 30)) == list(range(30))
    assert time.monotonic() - started >= 1.0


@pytest.mark.kafka
async def test_other_groups_see_nothing_of_it(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(1))
    one, other = await bench.join(driver, "one"), await bench.join(driver, "other")
    await one.nack([bench.nack(item) for item in await take(one, 1)])
    (again,) = await take(one, 1)
    assert attempt(again) == 2
    (first,) = await take(other, 1)
    assert attempt(first) == 1
    assert await nothing(other, 0.5)


@pytest.mark.kafka
async def test_a_foreign_record_is_retried_too(bench: Bench, driver: KafkaDriver) -> None:
    async with bench.producer() as foreign:
        await foreign.send_and_wait(bench.name, b"raw", key=b"\xff\x00")
    source = await bench.join(driver)
    (first,) = await take(source, 1)
    assert first.key == "\\xff\x00"
    await source.nack([bench.nack(first)])
    (again,) = await take(source, 1)
    assert (again.body, again.key, attempt(again)) == (b"raw", "\\xff\x00", 2)


@pytest.mark.kafka
async def test_retry_topics_that_vanished_are_made_anew(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish(bench.records(1))
    source = await bench.join(driver)
    received = await take(source, 1)
    topics = retry_topics(f"{bench.name}.billing")
    await until_gone(driver, topics[0])
    async with asyncio.timeout(60):
        await source.nack([bench.nack(item) for item in received])
    assert bodies(await take(source, 1)) == [b"0"]


@pytest.mark.kafka
async def test_reject_stores_the_letter_before_it_settles(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish(bench.records(2))
    source = await bench.join(driver)
    good, bad = await take(source, 2)
    letters = bench.topic(f"{bench.name}.dlq")
    await driver.declare(letters)
    await source.ack([good])
    await source.reject([Rejected(bad, bench.record(b"letter", name=letters.name))], driver.publish)
    await source.aclose()
    assert sum(place.offset for place in (await bench.committed()).values()) == 2
    reader = await bench.join(driver, "morgue", topic=letters)
    assert bodies(await take(reader, 1)) == [b"letter"]


@pytest.mark.kafka
async def test_what_is_done_is_deleted_from_the_retry_topics(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anymq_kafka.group.maintenance.TRIM_SECONDS", 0.0)
    await driver.publish(bench.records(8))
    source = await bench.join(driver)
    assert isinstance(source, GroupSource)
    await source.nack([bench.nack(item) for item in await take(source, 8)])
    await source.ack(await take(source, 8))
    tp = TopicPartition(retry_topics(f"{bench.name}.billing")[0], 0)

    async def trimmed() -> bool:
        begins = await source._member.consumer.beginning_offsets([tp])
        return bool(begins[tp] == 8)

    await eventually(trimmed)
    assert (await committed(source._member.consumer, [tp]))[tp].offset == 8
