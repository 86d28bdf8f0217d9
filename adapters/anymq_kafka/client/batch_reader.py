"""`Chunk`: the records of one answer to a fetch, taken out of its bytes a few at a time.

aiokafka makes a record of eleven fields and a tuple a header of each, and yields them one by one:
that was two thirds of all the time of a consumer.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from anymq.driver import MissingDependency

from ..messages import Headers, KafkaReceived, Unreadable
from ..varint import read
from .codec import TooLarge, unpacked
from .internals import PACKAGED, TopicPartition, crc32c, kafka

# Base offset, length, leader epoch, magic, checksum, attributes, last place, first and last time,
# producer, epoch, sequence, count.
_HEAD = struct.Struct(">qiibIhiqqqhii")
_SIZED, _CHECKED = 12, 21
MOST = 128 * 1024 * 1024
"""Bytes that a batch may unpack to, unless told otherwise."""
_CODEC, _APPEND_TIME, _TRANSACTION, _CONTROL = 0x07, 0x08, 0x10, 0x20


@dataclass(slots=True)
class Batch:
    """A record batch: `left` records from `place` of `data` on. Times are counted from `millis`.

    `instead` is there where it cannot be read: the one that is given for all of them.
    """

    data: bytes
    place: int
    end: int
    left: int
    base: int
    millis: int
    stamped: int
    instead: Unreadable | None = None


class Chunk:
    """Gives the records at and above `begin`; `end` is where reading goes on after it."""

    __slots__ = ("_batches", "_tp", "begin", "end")

    def __init__(self, tp: TopicPartition, batches: deque[Batch], begin: int, end: int) -> None:
        self._tp = tp
        self._batches = batches
        self.begin = begin
        self.end = end

    def __bool__(self) -> bool:
        """Whether there may be more."""
        return bool(self._batches)

    def take(self, limit: int) -> list[KafkaReceived]:
        """Return the next records; `limit` at most. An `Unreadable` comes alone."""
        out: list[KafkaReceived] = []
        while self._batches and (room := limit - len(out)) > 0:
            batch = self._batches[0]
            if batch.instead is not None:
                if not out:
                    self._batches.popleft()
                    out.append(batch.instead)
                break
            try:
                _take(self._tp, batch, self.begin, room, out)
            except IndexError as error:
                raise _corrupt(self._tp) from error
            if not batch.left:
                self._batches.popleft()
        if out:
            self.begin = out[-1].offset + 1
        return out


def _take(
    tp: TopicPartition, batch: Batch, begin: int, room: int, out: list[KafkaReceived]
) -> None:
    """Append up to `room` records of `batch`. Numbers are mostly of one byte or two."""
    data, place, base, first, stamped = (
        batch.data, batch.place, batch.base, batch.millis, batch.stamped
    )  # fmt: skip
    count = min(batch.left, room)
    value: bytes | None
    for _ in range(count):
        size = data[place]
        if size < 128:
            size >>= 1
            place += 1
        elif (byte := data[place + 1]) < 128:
            size = (size & 127 | byte << 7) >> 1
            place += 2
        else:
            size, place = read(data, place)
        stop = place + size
        # After the attributes, of which there are none.
        millis = data[place + 1]
        if millis < 128:
            millis = (millis >> 1) ^ -(millis & 1)
            place += 2
        else:
            millis, place = read(data, place + 1)
        offset = data[place]
        if offset < 128:
            offset >>= 1
            place += 1
        elif (byte := data[place + 1]) < 128:
            offset = (offset & 127 | byte << 7) >> 1
            place += 2
        else:
            offset, place = read(data, place)
        size = data[place]
        if size == 1:
            key = None
            place += 1
        else:
            size, place = read(data, place)
            key = data[place : place + size]
            place += size
        size = data[place]
        if size == 1:
            value = None
            place += 1
        else:
            if size < 128:
                size >>= 1
                place += 1
            elif (byte := data[place + 1]) < 128:
                size = (size & 127 | byte << 7) >> 1
                place += 2
            else:
                size, place = read(data, place)
            value = data[place : place + size]
            place += size
        if place >= stop or stop > batch.end:
            raise _corrupt(tp)
        offset += base
        if offset >= begin:
            if stamped:
                millis = 0
            out.append(
                KafkaReceived(
                    tp, offset, value, Headers(data[place:stop]), key, first + millis, stamped
                )
            )
        place = stop
    batch.place = place
    batch.left -= count


def chunk(tp: TopicPartition, data: bytes, begin: int, most: int = MOST) -> Chunk | None:
    """Return what a fetch from `begin` on has brought; None where that is not for here.

    A batch that unpacks to more than `most` bytes is one `Unreadable`.

    What is part of a transaction or of an old format is left to aiokafka, and what is damaged: it
    says so in its own words. Raises `MissingDependency` for a compression without its package.
    """
    batches: deque[Batch] = deque()
    view, place, end = memoryview(data), 0, begin
    while place + _HEAD.size <= len(data):
        (base, size, _, magic, crc, attributes, last, first, latest, _, _, _, count) = (
            _HEAD.unpack_from(data, place)
        )
        stop = place + _SIZED + size
        codec = attributes & _CODEC
        if magic == 2 and codec in PACKAGED:
            _check_package(tp, base, *PACKAGED[codec])
        if magic != 2 or attributes & (_TRANSACTION | _CONTROL):
            return None
        if stop > len(data):
            break  # the answer ends here
        if crc32c(view[place + _CHECKED : stop]) != crc:
            return None
        stamped = 1 if attributes & _APPEND_TIME else 0
        batch = Batch(
            data, place + _HEAD.size, stop, count, base, latest if stamped else first, stamped
        )
        if codec:
            try:
                if not _unpack(batch, codec, most):
                    return None
            except TooLarge:
                why = f"a compressed batch, the offsets {base} to {base + last}, unpacks from "
                why += f"{size} bytes to more than {most}: max_decompressed"
                batch.instead = Unreadable(tp, base + last, latest, why)
        end = base + last + 1
        if count > 0 and end > begin:
            batches.append(batch)
        place = stop
    return Chunk(tp, batches, begin, max(begin, end)) if place else None


def _unpack(batch: Batch, codec: int, most: int) -> bool:
    try:
        data = unpacked(codec, batch.data[batch.place : batch.end], most)
    except TooLarge:
        raise
    except Exception:
        return False
    batch.data, batch.place, batch.end = data, 0, len(data)
    return True


def _check_package(
    tp: TopicPartition, offset: int, name: str, is_there: Callable[[], bool]
) -> None:
    if not is_there():
        raise MissingDependency(
            f"{tp.topic}, partition {tp.partition}, is compressed with {name} from offset {offset} "
            f"on, for which a package is not installed: pip install 'aiokafka[{name}]'"
        )


def _corrupt(tp: TopicPartition) -> kafka.CorruptRecordException:
    return kafka.CorruptRecordException(f"a record of {tp} is not well-formed")
