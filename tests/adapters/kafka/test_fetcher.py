"""What is taken out of aiokafka's fetcher: all of it, once and in order, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from anymq.errors import MissingDependency
from anymq_kafka import KafkaDriver
from anymq_kafka.client import fetcher
from anymq_kafka.client.batch_reader import BatchReader
from anymq_kafka.client.codec import PACKAGED
from anymq_kafka.client.compat import AIOKafkaConsumer, TopicPartition, kafka
from anymq_kafka.client.fetcher import FetchedRecords, RecordFetcher
from anymq_kafka.messages import KafkaReceived
from tests.adapters.kafka.support import Bench
from tests.adapters.support import eventually
from tests.adapters.support import take as taken

pytestmark = pytest.mark.kafka


async def take(
    reading: RecordFetcher, count: int, limit: int = 100
) -> list[tuple[int, int, bytes]]:
    """Read until there are `count` records; where each was, and its body."""
    found: list[tuple[int, int, bytes]] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += flat(await reading.read(1.0, limit))
    return found


def flat(found: FetchedRecords) -> list[tuple[int, int, bytes]]:
    return [(tp.partition, item.offset, item.body) for tp, items in found for item in items]


def assign(consumer: AIOKafkaConsumer, name: str, *partitions: int) -> list[TopicPartition]:
    tps = [TopicPartition(name, number) for number in partitions]
    consumer.assign(tps)
    for tp in tps:
        consumer.seek(tp, 0)
    return tps


async def test_everything_comes_once_and_in_order(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(n, key=f"k{n % 20}") for n in range(900)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        found = await take(reading, 900, limit=70)
        assert await reading.read(0.3, 70) == []
    assert sorted(int(body) for *_, body in found) == list(range(900))
    for partition in range(3):
        offsets = [offset for number, offset, _ in found if number == partition]
        assert offsets == list(range(len(offsets)))


async def test_nothing_of_it_is_left_to_aiokafka(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a release has changed what `fetcher` relies on, and everything is merely slow."""

    def refuse(*_: object) -> None:
        raise AssertionError("aiokafka has read this")

    monkeypatch.setattr(fetcher, "from_aiokafka", refuse)
    await driver.publish(bench.records(50))
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        assert len(await take(reading, 50)) == 50
        assert reading._recorder.answers == {}


async def test_transactions_are_left_to_aiokafka(bench: Bench, driver: KafkaDriver) -> None:
    """What was aborted is skipped, what was committed comes."""
    async with bench.producer(transactional_id=f"{bench.name}.t") as producer:
        for number in range(6):
            await producer.begin_transaction()
            await producer.send(bench.name, b"%d" % number, partition=0)
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
    async with bench.consumer(isolation_level="read_committed") as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0)
        assert [body for *_, body in await take(reading, 3, limit=1)] == [b"0", b"2", b"4"]
        assert await reading.read(0.3, 9) == []


async def test_compressed(bench: Bench) -> None:
    driver = await bench.open(compression="gzip")
    await driver.publish([bench.record(b"%03d" % n * 50, key="a") for n in range(100)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        found = await take(reading, 100, limit=33)
    assert [body[:3] for *_, body in found] == [b"%03d" % n for n in range(100)]


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_compression_without_its_package_is_named_and_nothing_is_lost(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch, transactional: bool
) -> None:
    await driver.declare(bench.topic())
    options = {"transactional_id": f"{bench.name}.t"} if transactional else {}
    async with (
        bench.producer(compression_type="zstd", **options) as producer,
        producer.transaction() if transactional else contextlib.nullcontext(),
    ):
        await producer.send_and_wait(bench.name, b"7" * 2000, partition=0)
    source = await bench.join(driver)
    with monkeypatch.context() as patch:
        patch.setitem(PACKAGED, 4, ("zstd", lambda: False))
        for _ in range(2):
            with pytest.raises(MissingDependency, match=r"pip install 'aiokafka\[zstd\]'"):
                await taken(source, 1)
    assert [item.body for item in await taken(source, 1)] == [b"7" * 2000]


async def test_the_next_is_fetched_meanwhile(bench: Bench, driver: KafkaDriver) -> None:
    async with bench.consumer(max_partition_fetch_bytes=20_000) as consumer:
        reading = RecordFetcher(consumer)
        await driver.publish([bench.record(b"x" * 500, key="a") for _ in range(10)])
        await driver.publish([bench.record(b"x" * 500, key="a") for _ in range(90)])
        assign(consumer, bench.name, 0, 1, 2)
        found = await take(reading, 1, limit=1)
        parts: Any = reading

        async def is_there() -> bool:
            return bool(parts._fetcher._records)

        await eventually(is_there)
        assert len(await take(reading, 99, limit=1)) == 99
        assert found[0][1] == 0


async def test_what_is_paused_waits(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(n, key="a") for n in range(10)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        tps = assign(consumer, bench.name, 0, 1, 2)
        await take(reading, 1, limit=1)
        consumer.pause(*tps)
        assert await reading.read(0.3, 100) == []
        consumer.resume(*tps)
        assert [int(body) for *_, body in await take(reading, 9)] == list(range(1, 10))


async def test_a_new_assignment_begins_where_it_says(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(n, key="a") for n in range(10)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        assert len(await take(reading, 4, limit=4)) == 4
        assign(consumer, bench.name, 0, 1, 2)
        assert [int(body) for *_, body in await take(reading, 10)] == list(range(10))


async def test_a_record_that_is_not_well_formed(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, and nothing after it is skipped."""
    await driver.publish([bench.record(n, key="a") for n in range(5)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        whole = BatchReader.take

        def damaged(*_: object) -> None:
            raise kafka.CorruptRecordException("damaged")

        monkeypatch.setattr(BatchReader, "take", damaged)
        with pytest.raises(kafka.CorruptRecordException):
            await take(reading, 1)
        monkeypatch.setattr(BatchReader, "take", whole)
        assert [int(body) for *_, body in await take(reading, 5)] == list(range(5))


async def test_an_error_of_one_partition_loses_nothing_of_another(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in hand is handed out; the error comes then, as often as it is asked for."""
    await driver.publish([bench.record(n, key=f"k{n}") for n in range(30)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        whole = BatchReader.take

        def damaged(reader: BatchReader, limit: int) -> list[KafkaReceived]:
            if reader._tp.partition == 1:
                raise kafka.CorruptRecordException("damaged")
            return whole(reader, limit)

        monkeypatch.setattr(BatchReader, "take", damaged)
        found: list[tuple[int, int, bytes]] = []
        errors = 0
        async with asyncio.timeout(60):
            while errors < 3:
                try:
                    found += flat(await reading.read(0.5, 5))
                except kafka.CorruptRecordException:
                    errors += 1
        assert {partition for partition, *_ in found} == {0, 2}
        monkeypatch.setattr(BatchReader, "take", whole)
        found += await take(reading, 30 - len(found))
    assert sorted(int(body) for *_, body in found) == list(range(30))


@pytest.mark.parametrize("before", [0, 1])
async def test_what_is_damaged_is_an_error_in_aiokafkas_words(
    bench: Bench, driver: KafkaDriver, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Its checksum does not fit. What is stored before it is not passed over."""
    await driver.publish([bench.record(0, key="a")])
    await driver.publish([bench.record(1, key="a")])
    record = fetcher.FetchRecorder._record

    def damage(recorder: fetcher.FetchRecorder, request: Any, answer: Any) -> None:
        for _, partitions in answer.topics:
            for number, (partition, *rest, data) in enumerate(partitions):
                if data:
                    place = len(data) - 1 if before else 70
                    spoilt = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
                    partitions[number] = (partition, *rest, spoilt)
        record(recorder, request, answer)

    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        with monkeypatch.context() as patch:
            patch.setattr(fetcher.FetchRecorder, "_record", damage)
            assign(consumer, bench.name, 0, 1, 2)
            with pytest.raises(kafka.CorruptRecordException, match="CRC"):
                await take(reading, 3)
        assert [int(body) for *_, body in await take(reading, 2)] == [0, 1]


async def test_answers_that_come_to_nothing_are_forgotten(
    bench: Bench, driver: KafkaDriver
) -> None:
    await driver.publish([bench.record(n, key=f"k{n}") for n in range(30)])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        assign(consumer, bench.name, 0, 1, 2)
        await take(reading, 1, limit=1)
        assign(consumer, bench.name, 0)
        assert len(await take(reading, 1, limit=1)) == 1
        await reading.read(0, 1)
        assert all(tp.partition == 0 for tp in reading._recorder.answers)


async def test_errors_of_the_fetcher_are_raised(bench: Bench, driver: KafkaDriver) -> None:
    await driver.publish([bench.record(1, key="a")])
    async with bench.consumer() as consumer:
        reading = RecordFetcher(consumer)
        tp, *_ = assign(consumer, bench.name, 0, 1, 2)
        error = kafka.TopicAuthorizationFailedError(bench.name)
        assert len(await take(reading, 1)) == 1
        parts: Any = reading
        parts._fetcher._set_error(tp, error)
        with pytest.raises(kafka.TopicAuthorizationFailedError):
            await reading.read(1.0, 1)
    with pytest.raises(kafka.ConsumerStoppedError):
        await reading.read(0, 1)
