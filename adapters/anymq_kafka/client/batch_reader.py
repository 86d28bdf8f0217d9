"""`BatchReader`: decodes the records of one fetch answer, a few at a time.

aiokafka builds a record of eleven fields, and a tuple for each header, and yields them one by one.
That took two thirds of a consumer's time.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from anymq.driver import MissingDependency

from ..messages import Headers, KafkaReceived, UnreadableBatch
from .codec import MAX_DECOMPRESSED, PACKAGED, TooLarge, decode_varint, decompress
from .compat import TopicPartition, crc32c, kafka

# Base offset, length, leader epoch, magic, checksum, attributes, last index, first and last time,
# producer, epoch, sequence, count.
_HEAD = struct.Struct(">qiibIhiqqqhii")
_LENGTH_FROM, _CHECKED_FROM = 12, 21
_CODEC, _APPEND_TIME, _TRANSACTION, _CONTROL = 0x07, 0x08, 0x10, 0x20


@dataclass(slots=True)
class Batch:
    """A record batch with `left` undecoded records, from `index` of `data` on.

    The times of its records count from `timestamp_ms`. If it cannot be decoded, `unreadable`
    stands for all its records.
    """

    data: bytes
    index: int
    end: int
    left: int
    base: int
    timestamp_ms: int
    timestamp_type: int
    unreadable: UnreadableBatch | None = None


class BatchReader:
    """The undecoded records from the offset `begin` up to, but not including, `end`."""

    __slots__ = ("_batches", "_tp", "begin", "end")

    def __init__(self, tp: TopicPartition, batches: deque[Batch], begin: int, end: int) -> None:
        self._tp = tp
        self._batches = batches
        self.begin = begin
        self.end = end

    def __bool__(self) -> bool:
        """Whether there may be more records."""
        return bool(self._batches)

    def take(self, limit: int) -> list[KafkaReceived]:
        """Return up to `limit` of the next records, or one `UnreadableBatch` alone."""
        out: list[KafkaReceived] = []
        while self._batches and (room := limit - len(out)) > 0:
            batch = self._batches[0]
            if batch.unreadable is not None:
                if not out:
                    self._batches.popleft()
                    out.append(batch.unreadable)
                break
            try:
                _decode(self._tp, batch, self.begin, room, out)
            except IndexError as error:
                raise _corrupt(self._tp) from error
            if not batch.left:
                self._batches.popleft()
        if out:
            self.begin = out[-1].offset + 1
        return out


def _decode(
    tp: TopicPartition, batch: Batch, begin: int, room: int, out: list[KafkaReceived]
) -> None:
    """Append up to `room` records of `batch`. Numbers of one and two bytes are decoded inline."""
    data, index, base, first_ms, timestamp_type = (
        batch.data, batch.index, batch.base, batch.timestamp_ms, batch.timestamp_type
    )  # fmt: skip
    count = min(batch.left, room)
    value: bytes | None
    for _ in range(count):
        size = data[index]
        if size < 128:
            size >>= 1
            index += 1
        elif (byte := data[index + 1]) < 128:
            size = (size & 127 | byte << 7) >> 1
            index += 2
        else:
            size, index = decode_varint(data, index)
        stop = index + size
        # One byte of attributes, which are unused, comes first.
        elapsed_ms = data[index + 1]
        if elapsed_ms < 128:
            elapsed_ms = (elapsed_ms >> 1) ^ -(elapsed_ms & 1)
            index += 2
        else:
            elapsed_ms, index = decode_varint(data, index + 1)
        offset = data[index]
        if offset < 128:
            offset >>= 1
            index += 1
        elif (byte := data[index + 1]) < 128:
            offset = (offset & 127 | byte << 7) >> 1
            index += 2
        else:
            offset, index = decode_varint(data, index)
        size = data[index]
        if size == 1:
            key = None
            index += 1
        else:
            size, index = decode_varint(data, index)
            key = data[index : index + size]
            index += size
        size = data[index]
        if size == 1:
            value = None
            index += 1
        else:
            if size < 128:
                size >>= 1
                index += 1
            elif (byte := data[index + 1]) < 128:
                size = (size & 127 | byte << 7) >> 1
                index += 2
            else:
                size, index = decode_varint(data, index)
            value = data[index : index + size]
            index += size
        if index >= stop or stop > batch.end:
            raise _corrupt(tp)
        offset += base
        if offset >= begin:
            if timestamp_type:
                elapsed_ms = 0
            out.append(
                KafkaReceived(
                    tp,
                    offset,
                    value,
                    Headers(data[index:stop]),
                    key,
                    first_ms + elapsed_ms,
                    timestamp_type,
                )
            )
        index = stop
    batch.index = index
    batch.left -= count


def read_batches(
    tp: TopicPartition, data: bytes, begin: int, max_decompressed: int = MAX_DECOMPRESSED
) -> BatchReader | None:
    """Return a reader of `data`, the answer to a fetch from the offset `begin` on.

    A batch that decompresses to more than `max_decompressed` bytes becomes one `UnreadableBatch`.
    Returns None for batches that aiokafka must read: those of a transaction or an old format, and
    damaged ones, for which it raises its own error. Raises `MissingDependency` for a compression
    whose package is not installed.
    """
    batches: deque[Batch] = deque()
    view, index, end = memoryview(data), 0, begin
    while index + _HEAD.size <= len(data):
        (base, size, _, magic, crc, attributes, last, first_ms, last_ms, _, _, _, count) = (
            _HEAD.unpack_from(data, index)
        )
        stop = index + _LENGTH_FROM + size
        codec = attributes & _CODEC
        if magic == 2 and codec in PACKAGED:
            _check_package(tp, base, *PACKAGED[codec])
        if magic != 2 or attributes & (_TRANSACTION | _CONTROL):
            return None
        if stop > len(data):
            break  # the answer ends within this batch
        if crc32c(view[index + _CHECKED_FROM : stop]) != crc:
            return None
        timestamp_type = 1 if attributes & _APPEND_TIME else 0
        timestamp_ms = last_ms if timestamp_type else first_ms
        batch = Batch(data, index + _HEAD.size, stop, count, base, timestamp_ms, timestamp_type)
        if codec:
            try:
                if not _decompress(batch, codec, max_decompressed):
                    return None
            except TooLarge:
                why = f"a compressed batch, the offsets {base} to {base + last}, unpacks from "
                why += f"{size} bytes to more than {max_decompressed}: max_decompressed"
                batch.unreadable = UnreadableBatch(tp, base + last, last_ms, why)
        end = base + last + 1
        if count > 0 and end > begin:
            batches.append(batch)
        index = stop
    return BatchReader(tp, batches, begin, max(begin, end)) if index else None


def _decompress(batch: Batch, codec: int, limit: int) -> bool:
    try:
        data = decompress(codec, batch.data[batch.index : batch.end], limit)
    except TooLarge:
        raise
    except Exception:
        return False
    batch.data, batch.index, batch.end = data, 0, len(data)
    return True


def _check_package(
    tp: TopicPartition, offset: int, name: str, is_installed: Callable[[], bool]
) -> None:
    if not is_installed():
        raise MissingDependency(
            f"{tp.topic}, partition {tp.partition}, is compressed with {name} from offset {offset} "
            f"on, for which a package is not installed: pip install 'aiokafka[{name}]'"
        )


def _corrupt(tp: TopicPartition) -> kafka.CorruptRecordException:
    return kafka.CorruptRecordException(f"a record of {tp} is not well-formed")
