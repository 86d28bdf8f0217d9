"""Batches are what aiokafka would have made, and are read as aiokafka would read them."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.producer.message_accumulator import (  # type: ignore[import-untyped]
    BatchBuilder,
    MessageBatch,
)
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import CONTROL, Record, SharedHeaders
from anymq_kafka.client import batch_writer
from anymq_kafka.client.batch_reader import BatchReader, read_batches
from anymq_kafka.client.batch_writer import BatchWriter
from anymq_kafka.client.codec import CODECS, decode_varint, encode_length, encode_varint
from anymq_kafka.client.compat import TopicPartition
from anymq_kafka.messages import DUE, Headers

TP = TopicPartition("orders", 3)
NOW = 1_700_000_000_123

texts = st.text(max_size=8) | st.sampled_from(["é" * 40, "x" * 3000, DUE, "a" * 64])
headers = st.dictionaries(texts, texts, max_size=3)
records = st.builds(
    lambda body, key, common, own: Record(
        topic="orders",
        id="",
        unique="",
        body=body,
        key=key,
        headers=own,
        common=SharedHeaders(common),
    ),
    st.sampled_from([b"", b"x" * 63, b"y" * 64, b"z" * 9000]) | st.binary(max_size=8),
    st.none() | texts,
    headers,
    headers,
)


def built(*made: Record, compression: str | None = None) -> bytes:
    batch = BatchWriter(10_000_000, NOW, compression)
    for record in made:
        assert batch.add(record)
    batch._set_producer_state(7, 1, 12)
    return batch._build()


def by_aiokafka(*made: Record) -> bytes:
    batch = BatchBuilder(10_000_000, 0)
    for record in made:
        batch.append(
            timestamp=NOW,
            key=None if record.key is None else record.key.encode(),
            value=record.body,
            headers=pairs(record),
        )
    batch._set_producer_state(7, 1, 12)
    return bytes(batch._build())


def pairs(record: Record) -> list[tuple[str, bytes]]:
    both = [*record.common.items(), *record.own.items()]
    return [(name, value.encode()) for name, value in both]


def by_aiokafka_read(data: bytes) -> list[Any]:
    batch: Any = MemoryRecords(data).next_batch()
    return list(batch)


def opened(data: bytes, begin: int = 0) -> BatchReader:
    found = read_batches(TP, data, begin)
    assert found is not None
    return found


def moved(data: bytes, base: int) -> bytes:
    """The batch as a broker has it that stored it at `base`."""
    return base.to_bytes(8, "big") + data[8:]


@given(st.lists(records, min_size=1, max_size=12))
def test_a_batch_is_byte_for_byte_what_aiokafka_makes(made: list[Record]) -> None:
    assert built(*made) == by_aiokafka(*made)


@given(st.lists(records, min_size=1, max_size=12), st.integers(0, 1 << 40), st.integers(1, 7))
def test_records_come_back(made: list[Record], base: int, limit: int) -> None:
    data = moved(built(*made), base)
    ours = opened(data, base)
    read = []
    while some := ours.take(limit):
        assert len(some) <= limit
        read += some
    theirs = by_aiokafka_read(data)
    assert ours.end == base + len(made)
    assert [item.offset for item in read] == [item.offset for item in theirs]
    for item, other, record in zip(read, theirs, made, strict=True):
        assert (item.body, item.native.value) == (record.body, other.value)
        assert item.key == record.key
        assert item.native.key == other.key
        assert item.native.headers == tuple(other.headers)
        assert item.native.timestamp == NOW
        assert item.time == NOW / 1000
        assert item.position == f"3:{item.offset}"
        assert (item.partition, item.redeliveries, item.content_type) == (3, 0, None)
        last = {name: value for name, value in dict(pairs(record)).items() if name != DUE}
        assert dict(item.headers) == {name: value.decode() for name, value in last.items()}


@pytest.mark.parametrize("compression", sorted(CODECS))
def test_compressed(compression: str) -> None:
    made = [Record(topic="", id="", unique="", body=b"%d " % n * 40) for n in range(50)]
    data = built(*made, compression=compression)
    assert len(data) < len(built(*made))
    expected = [record.body for record in made]
    assert [item.body for item in opened(data).take(100)] == expected
    assert [item.value for item in by_aiokafka_read(data)] == expected


def test_what_does_not_get_smaller_is_not_compressed() -> None:
    record = Record(topic="", id="", unique="", body=b"x")
    assert built(record, compression="gzip") == built(record)


def test_reading_begins_in_the_middle_of_a_batch() -> None:
    made = [Record(topic="", id="", unique="", body=b"%d" % n) for n in range(5)]
    data = moved(built(*made), 10) + moved(built(*made[:2]), 15)
    ours = opened(data, 12)
    assert [item.offset for item in ours.take(2)] == [12, 13]
    assert ours.begin == 14
    assert [item.offset for item in ours.take(9)] == [14, 15, 16]
    assert (ours.begin, ours.end) == (17, 17)
    assert not ours


def test_an_answer_that_ends_in_the_middle_of_a_batch() -> None:
    made = Record(topic="", id="", unique="", body=b"a")
    whole = built(made)
    assert len(opened(whole + whole[:40]).take(9)) == 1
    assert len(opened(whole + whole[:-1]).take(9)) == 1
    assert read_batches(TP, whole[:-1], 0) is None


@pytest.mark.parametrize("place", [16, 22, 70])
def test_unsupported_or_damaged_batches_are_left_to_aiokafka(place: int) -> None:
    """Another format, a transaction, damage: aiokafka reads it, or says what is wrong."""
    data = bytearray(built(Record(topic="", id="", unique="", body=b"a" * 20)))
    data[place] ^= 0x10
    assert read_batches(TP, bytes(data), 0) is None


NAMES = st.sampled_from(["ce_id", "ce_source", "x"])


@given(st.lists(st.lists(st.tuples(NAMES, st.text(max_size=8) | NAMES), max_size=5), max_size=8))
def test_a_header_is_found_where_it_would_be_read(messages: list[list[tuple[str, str]]]) -> None:
    def of(pairs: list[tuple[str, str]]) -> Headers:
        parts = [part.encode() for pair in pairs for part in pair]
        return Headers(
            encode_length(len(pairs)) + b"".join(encode_length(len(part)) + part for part in parts)
        )

    for pairs in messages:
        for name in ("ce_id", "ce_source"):
            assert of(pairs).find(name) == of(pairs).get(name) == dict(pairs).get(name)


def test_control_headers_are_looked_for_in_the_bytes() -> None:
    def item(**headers: str) -> Any:
        record = Record(topic="", id="", unique="", body=b"", headers=headers)
        (found,) = opened(built(record)).take(1)
        return found.headers

    plain = item(a="b")
    assert plain.plain
    assert not item(**{f"{CONTROL}attempt": "2"}).plain
    assert item(a=CONTROL).plain
    assert plain.get(f"{CONTROL}attempt") is None
    assert plain._found is None
    assert plain.get("a") == "b"
    assert plain.get("c", "d") == "d"
    assert item(**{f"{CONTROL}attempt": "3"}).get(f"{CONTROL}attempt") == "3"
    assert item(a=CONTROL).get(f"{CONTROL}attempt") is None
    waits = item(**{DUE: "17", "a": "b"})
    assert (waits.due(), dict(waits)) == (17, {"a": "b"})
    assert (item(a=DUE).due(), item(**{DUE: "soon"}).due()) == (0, 0)


def test_a_batch_is_full() -> None:
    record = Record(topic="", id="", unique="", body=b"x" * 100)
    batch = BatchWriter(300, NOW)
    assert batch.add(record)
    assert batch.add(record)
    size = batch.size()
    assert not batch.add(record)
    assert batch.record_count() == 2
    assert len(batch._build()) == size == batch.size() <= 300
    large = BatchWriter(300, NOW)
    assert large.add(Record(topic="", id="", unique="", body=b"x" * 1000))


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3 * batch_writer.MAX_CACHED_NAMES):
        common, own = SharedHeaders(common=str(number)), {f"own{number}": ""}
        record = Record(topic="", id="", unique="", body=b"", headers=own, common=common)
        (found,) = opened(built(record)).take(1)
        assert dict(found.headers) == common | own
    assert len(batch_writer._names) <= batch_writer.MAX_CACHED_NAMES


@given(st.integers(-(1 << 62), 1 << 62))
def test_numbers(value: int) -> None:
    data = b"x" + encode_varint(value)
    assert decode_varint(data, 1) == (value, len(data))
    if value >= 0:
        assert encode_length(value) == data[1:]


def test_a_batch_has_all_that_aiokafka_calls() -> None:
    """`MessageBatch` is what aiokafka puts around it: every use it makes of it, made once."""
    taken = {
        name
        for part in vars(MessageBatch).values()
        for name in getattr(getattr(part, "__code__", None), "co_names", ())
    }
    known = set(dir(BatchBuilder)) & taken - set(dir(object))
    ours = set(dir(BatchWriter))
    assert known - ours == set()
    assert {"_build", "_set_producer_state", "append", "closed"} <= known
