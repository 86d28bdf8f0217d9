"""What a compressed batch may become: no more than is allowed, in any compression."""

from __future__ import annotations

import tracemalloc

import pytest

from anymq import connect
from anymq.driver import Record
from anymq.testing import random_name
from anymq.testing.tools import eventually, take, until
from anymq_kafka.client.batch_reader import read_batches
from anymq_kafka.client.batch_writer import BatchWriter
from anymq_kafka.client.codec import CODECS, TooLarge, decompress
from anymq_kafka.client.compat import TopicPartition
from anymq_kafka.messages import KafkaReceived, UnreadableBatch
from tests.adapters.kafka.support import Bench

pytestmark = pytest.mark.kafka

TP = TopicPartition("t", 0)
MB = 1024 * 1024


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, MB])
def test_what_is_allowed_is_unpacked(name: str, size: int) -> None:
    number, pack = CODECS[name]
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert decompress(number, pack(data), max(size, 1)) == data


@pytest.mark.parametrize("name", CODECS)
def test_more_is_refused_before_it_is_there(name: str) -> None:
    number, pack = CODECS[name]
    bomb = pack(b"\0" * (64 * MB))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(number, bomb, 2 * MB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_that_is_too_large_is_one_record_and_the_others_come(name: str) -> None:
    parts: list[bytes] = []
    for base, size in ((0, 10), (2, 3 * MB), (4, 10)):
        batch = BatchWriter(8 * MB, 1, name)
        for _ in range(2):
            batch.add(Record(topic="", id="", unique="", body=b"a" * size))
        parts.append(base.to_bytes(8, "big") + batch._build()[8:])
    found = read_batches(TP, b"".join(parts), 0, MB)
    assert found is not None
    taken: list[list[KafkaReceived]] = []
    while found:
        taken.append(found.take(10))
    assert [[item.offset for item in items] for items in taken] == [[0, 1], [3], [4, 5]]
    (instead,) = taken[1]
    assert isinstance(instead, UnreadableBatch)
    assert "the offsets 2 to 3" in instead.reason


@pytest.mark.parametrize("ordered", [False, True])
async def test_it_becomes_a_letter_and_the_group_goes_on(server_url: str, ordered: bool) -> None:
    url, topic = f"{server_url}?max_decompressed={MB}&partitions=1", random_name()
    here: list[bytes] = []
    everywhere: list[bytes] = []

    async def handle(body: bytes) -> None:
        here.append(body[:9])

    async def read(body: bytes) -> None:
        everywhere.append(body[:9])

    async with (
        connect(url) as broker,
        Bench(server_url).producer() as other,
        broker.subscribe(topic, group="g", handler=handle, ordered=ordered),
        broker.subscribe(topic, group=None, handler=read, start="earliest"),
    ):
        await broker.publish(topic, b"before")
        await _bomb(other, topic)
        await broker.publish(topic, b"after")
        await until(lambda: b"after" in here and b"after" in everywhere)
        letters = broker.admin.dead_letters(topic, "g")
        found = await eventually(letters.list, bool)
        # `browse`, and a reader that begins at that position, do not unpack it either.
        assert [m.message.body async for m in broker.admin.browse(topic)] == [b"before", b"after"]
        async with broker.subscribe(topic, group=None, start="0:1") as later:
            assert (await take(later, 1))[0].message.body == b"after"
    assert here == everywhere == [b"before", b"after"]
    assert "max_decompressed" in str(found[0].reason)


async def _bomb(producer: object, topic: str) -> None:
    """Send two megabytes as one batch of some thousand bytes."""
    batch = BatchWriter(8 * MB, 1, "gzip")
    batch.add(Record(topic="", id="", unique="", body=b"1" * (2 * MB)))
    await (await producer.send_batch(batch, topic, partition=0))  # type: ignore[attr-defined]
