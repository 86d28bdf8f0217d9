"""`OffsetTracker`: acks in any order over a log that stores one committed offset per partition.

The rest of the state is committed as metadata, a text beside the offset: the ranges settled above
it, and the redeliveries and due times of unsettled records.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .records import Due

MAX_METADATA = 4000
"""The most characters of metadata."""

Range = tuple[int, int]
"""Offsets from the first up to, but not including, the second."""

_MAGIC = "anymq1:"
_SEPARATOR = "!"
_TENTHS = 10
"""Due times are written in tenths of a second."""
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_MORE, _BITS, _LOW = 32, 5, 31
_MAX_OFFSET = 1 << 63


class OffsetTracker:
    """The delivered and settled offsets of one partition during one assignment.

    `begin` is the committed offset from which reading starts, and `metadata` the text committed
    with it. Offsets are delivered in the order of the log. Offsets missing between two delivered
    ones (compaction, transaction markers) count as settled, because a log never fills a gap later.
    Make a new tracker for every assignment and `close` the old one, which then ignores all calls.
    """

    __slots__ = ("_above", "_counts", "_dues", "_next", "_open", "closed")

    def __init__(self, begin: int, metadata: str = "") -> None:
        self._next = begin
        self._open: dict[int, None] = {}
        self._above: deque[Range] = deque(decode(begin, metadata))
        self._counts = decode_counts(begin, metadata)
        self._dues = decode_dues(begin, metadata)
        self.closed = False

    @property
    def position(self) -> int:
        """The offset after the highest one delivered: every later delivery is at or above it."""
        return self._next

    @property
    def watermark(self) -> int:
        """The offset to commit: all offsets below it are settled."""
        for offset in self._open:
            return offset
        # A range settled by an earlier owner may start here.
        if self._above and self._above[0][0] <= self._next:
            return max(self._next, self._above[0][1])
        return self._next

    @property
    def span(self) -> int:
        """The number of offsets from the watermark to the position.

        Without metadata, a crash would redeliver as many.
        """
        return max(0, self._next - self.watermark)

    @property
    def open(self) -> int:
        """The number of offsets delivered and not settled."""
        return len(self._open)

    def deliver(self, offset: int) -> bool:
        """Record the delivery of `offset`; return False if an earlier owner has settled it."""
        if offset < self._next:
            raise ValueError(f"offset {offset} is below the position {self._next}")
        above = self._above
        while above and above[0][1] <= offset:
            above.popleft()
        self._next = offset + 1
        if above and above[0][0] <= offset:
            return False
        self._open[offset] = None
        return True

    def skip_to(self, position: int) -> bool:
        """Advance to `position`, below which nothing is left to deliver; False if not ahead."""
        if self.closed or position <= self._next:
            return False
        self._next = position
        return True

    def is_open(self, offset: int) -> bool:
        """Whether `offset` is delivered and not settled, and the assignment has not ended."""
        return not self.closed and offset in self._open

    def done(self, offset: int) -> bool:
        """Settle `offset`; return False if it is settled already or the assignment has ended."""
        if self.closed or offset not in self._open:
            return False
        del self._open[offset]
        self._counts.pop(offset, None)
        self._dues.pop(offset, None)
        return True

    def keep(self, offset: int, count: int, due: Due | None = None) -> bool:
        """Store the number of redeliveries of the unsettled `offset`, and its due time.

        Return False if it is settled, or the assignment has ended.
        """
        if not self.is_open(offset):
            return False
        self._counts[offset] = count
        self._dues.pop(offset, None)
        if due is not None:
            self._dues[offset] = due
        return True

    def count(self, offset: int) -> int:
        """Return the stored number of redeliveries of `offset`, 0 without one."""
        return self._counts.get(offset, 0)

    def due(self, offset: int) -> Due | None:
        """Return the stored due time of `offset`; None without one."""
        return self._dues.get(offset)

    def close(self) -> None:
        """End the assignment: later calls are ignored."""
        self.closed = True

    def commit(self, limit: int = MAX_METADATA) -> tuple[int, str]:
        """Return the offset to commit, and its metadata.

        Metadata longer than `limit` characters is shortened: the lowest offsets stay.
        """
        watermark = self.watermark
        counts = self._counts and {o: n for o, n in self._counts.items() if o >= watermark}
        dues = self._dues and {o: due for o, due in self._dues.items() if o >= watermark}
        return watermark, encode(watermark, self._done_above(watermark), limit, counts, dues)

    def _done_above(self, watermark: int) -> Iterator[Range]:
        start = watermark
        for offset in self._open:
            if offset > start:
                yield start, offset
            start = offset + 1
        above = [item for item in self._above if item[1] > max(watermark, self._next)]
        if start < self._next:
            if above and above[0][0] <= self._next:
                yield start, above.pop(0)[1]
            else:
                yield start, self._next
        yield from above


def encode(
    begin: int,
    done: Iterable[Range],
    limit: int = MAX_METADATA,
    counts: Mapping[int, int] | None = None,
    dues: Mapping[int, Due] | None = None,
) -> str:
    """Return metadata of at most `limit` characters: the ranges `done`, the `counts`, the `dues`.

    The ranges are ascending and above `begin`. The text has three parts, with separators between
    them, in which each offset is written as its distance from the one before:

    - the lengths of unsettled and settled ranges, alternating;
    - for each count, its offset and the count;
    - the earliest due time, then for each due time its offset, its difference from the earliest,
      and the whole delay.

    Each part is cut at its end if it does not fit. Counts take at most half of the characters, and
    due times half of the rest. Without settled ranges, counts and due times the text is empty.
    """
    room = limit - len(_MAGIC)
    count_part = _encode_counts(begin, sorted((counts or {}).items()), room // 2 - len(_SEPARATOR))
    if count_part:
        room -= len(count_part) + len(_SEPARATOR)
    due_part = _encode_dues(begin, dues, room // 2 - 2 * len(_SEPARATOR)) if dues else ""
    if due_part:
        room -= len(due_part) + (1 if count_part else 2) * len(_SEPARATOR)
    parts: list[str] = []
    previous = begin
    for start, stop in done:
        part = _number(start - previous) + _number(stop - start)
        room -= len(part)
        if room < 0:
            break
        parts.append(part)
        previous = stop
    if count_part or due_part:
        parts += (_SEPARATOR, count_part)
    if due_part:
        parts += (_SEPARATOR, due_part)
    return _MAGIC + "".join(parts) if parts else ""


def _encode_counts(previous: int, items: Iterable[tuple[int, int]], room: int) -> str:
    text = ""
    for offset, count in items:
        part = _number(offset - previous) + _number(count)
        if len(text) + len(part) > room:
            break
        text += part
        previous = offset
    return text


def _encode_dues(previous: int, dues: Mapping[int, Due], room: int) -> str:
    # Rounded up, so that no record is due early.
    tenths = {
        offset: (math.ceil(due.at * _TENTHS), math.ceil(due.delay * _TENTHS))
        for offset, due in sorted(dues.items())
    }
    first = min(at for at, _ in tenths.values())
    text, empty = _number(first), True
    for offset, (at, delay) in tenths.items():
        part = _number(offset - previous) + _number(at - first) + _number(delay)
        if len(text) + len(part) > room:
            break
        text, previous, empty = text + part, offset, False
    return "" if empty else text


def decode(begin: int, text: str) -> Sequence[Range]:
    """Return the ranges that `encode` wrote; none if it did not write `text`."""
    numbers = _read(text, 0)
    ranges: list[Range] = []
    offset = begin
    for index in range(0, len(numbers), 2):
        start = offset + numbers[index]
        offset = start + numbers[index + 1]
        if not numbers[index + 1] or (index and not numbers[index]) or offset > _MAX_OFFSET:
            return ()
        ranges.append((start, offset))
    return ranges


def decode_counts(begin: int, text: str) -> dict[int, int]:
    """Return the counts that `encode` wrote; none if it did not write `text`."""
    numbers = _read(text, 1)
    counts: dict[int, int] = {}
    offset = begin
    for index in range(0, len(numbers), 2):
        offset += numbers[index]
        if offset > _MAX_OFFSET:
            return {}
        counts[offset] = numbers[index + 1]
    return counts


def decode_dues(begin: int, text: str) -> dict[int, Due]:
    """Return the due times that `encode` wrote; none if it did not write `text`."""
    numbers = _read(text, 2, width=3, head=1)
    dues: dict[int, Due] = {}
    offset = begin
    for index in range(1, len(numbers), 3):
        offset += numbers[index]
        if offset > _MAX_OFFSET:
            return {}
        at = numbers[0] + numbers[index + 1]
        dues[offset] = Due(at / _TENTHS, numbers[index + 2] / _TENTHS)
    return dues


def _read(text: str, part: int, *, width: int = 2, head: int = 0) -> Sequence[int]:
    """Return the numbers in one part of the text; none if it is malformed.

    After the first `head` numbers, their count must be a multiple of `width`.
    """
    if not text.startswith(_MAGIC):
        return ()
    parts = text[len(_MAGIC) :].split(_SEPARATOR)
    numbers = _numbers(parts[part]) if part < len(parts) <= 3 else None
    return numbers if numbers and (len(numbers) - head) % width == 0 else ()


def _number(value: int) -> str:
    digits = ""
    while value > _LOW:
        digits += _DIGITS[_MORE | (value & _LOW)]
        value >>= _BITS
    return digits + _DIGITS[value]


def _numbers(text: str) -> list[int] | None:
    numbers: list[int] = []
    value = shift = 0
    for digit in text:
        bits = _VALUES.get(digit)
        if bits is None or shift > 60:
            return None
        value |= (bits & _LOW) << shift
        if bits & _MORE:
            shift += _BITS
        else:
            numbers.append(value)
            value = shift = 0
    return None if shift else numbers
