"""The partitioner: equal to that of Kafka, with an even spread."""

from __future__ import annotations

from collections import Counter

import pytest
from aiokafka.partitioner import murmur2 as reference  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver.partitions import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_test_vectors_of_kafka_match(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed % 2**32


@given(st.binary(max_size=100))
def test_the_hash_is_that_of_the_client(key: bytes) -> None:
    assert murmur2(key) == reference(key) % 2**32


@given(st.text(max_size=50), st.integers(1, 1000))
def test_a_key_has_one_partition(key: str, count: int) -> None:
    partition = partition_of(key, count)
    assert 0 <= partition < count
    assert partition == (reference(key.encode()) & 0x7FFFFFFF) % count


def test_numbered_keys_are_spread() -> None:
    counted = Counter(partition_of(f"order-{number}", 8) for number in range(8000))
    assert min(counted.values()) > 850
    assert max(counted.values()) < 1150
