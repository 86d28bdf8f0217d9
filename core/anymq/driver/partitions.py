"""The partitioner of all backends: a key has the same partition number on each."""

from __future__ import annotations

from functools import lru_cache

_M, _R, _SEED, _MASK = 0x5BD1E995, 24, 0x9747B28C, 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of `data` with the seed Apache Kafka uses, unsigned.

    The same as `org.apache.kafka.common.utils.Utils.murmur2`, read as an unsigned number.
    """
    length = len(data)
    hashed = (_SEED ^ length) & _MASK
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        word = (word ^ word >> _R) * _M & _MASK
        hashed = hashed * _M & _MASK ^ word
    if length > whole:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


@lru_cache(maxsize=65536)
def partition_of(key: str | bytes, count: int) -> int:
    """Return the partition of `key` among `count`, as Kafka's default partitioner would."""
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % count
