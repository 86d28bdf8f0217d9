"""`OffsetTracker`: acks in any order over a log that knows only "everything below N is done".

What goes beyond that travels in the text that is committed with the offset: the ranges that are
done above it, how often some of the open messages have been tried, and when they are due again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .records import Due

MAX_METADATA = 4000

Range = tuple[int, int]
"""Offsets from the first up to, but not including, the second."""

_MAGIC = "anymq1:"
_NEXT = "!"
_TENTHS = 10
"""Due times are written in tenths of a second."""
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_MORE, _BITS, _LOW = 32, 5, 31
_LARGEST = 1 << 63


class OffsetTracker:
    """What has been done in one partition during one assignment of it.

    `begin` is the committed offset that reading starts from and `metadata` the text that was
    committed with it. Offsets are handed over in the order in which they are read; they may have
    gaps (compaction, transaction markers), so what lies between two of them counts as done: a log
    never fills a gap later. Make a new tracker for every assignment and `close` the old one: what
    is said to it afterwards has no effect on anybody.
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
        """The offset to commit: everything below it is done."""
        for offset in self._open:
            return offset
        # What an earlier owner had completed may begin right here.
        if self._above and self._above[0][0] <= self._next:
            return max(self._next, self._above[0][1])
        return self._next

    @property
    def span(self) -> int:
        """How far reading is ahead of the watermark: what a crash repeats, were it not for the
        metadata."""
        return max(0, self._next - self.watermark)

    @property
    def open(self) -> int:
        """How many offsets are delivered and not done."""
        return len(self._open)

    def deliver(self, offset: int) -> bool:
        """Note that `offset` was read; False if an earlier owner of the partition completed it."""
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
        """Note that below `position` there is nothing more to deliver; False if that is known."""
        if self.closed or position <= self._next:
            return False
        self._next = position
        return True

    def is_open(self, offset: int) -> bool:
        """Whether `offset` is delivered and not done, in an assignment that still holds."""
        return not self.closed and offset in self._open

    def done(self, offset: int) -> bool:
        """Note that `offset` is done; False if that changes nothing (done already, or too late)."""
        if self.closed or offset not in self._open:
            return False
        del self._open[offset]
        self._counts.pop(offset, None)
        self._dues.pop(offset, None)
        return True

    def keep(self, offset: int, count: int, due: Due | None = None) -> bool:
        """Note that `offset`, still open, has been redelivered `count` times, and when it is due
        again; False if too late."""
        if not self.is_open(offset):
            return False
        self._counts[offset] = count
        self._dues.pop(offset, None)
        if due is not None:
            self._dues[offset] = due
        return True

    def count(self, offset: int) -> int:
        """How often `offset` has been redelivered, as far as was noted."""
        return self._counts.get(offset, 0)

    def due(self, offset: int) -> Due | None:
        """When `offset` is due again, as far as was noted."""
        return self._dues.get(offset)

    def close(self) -> None:
        """The assignment is over."""
        self.closed = True

    def commit(self, limit: int = MAX_METADATA) -> tuple[int, str]:
        """Return the offset to commit and the text that says what is done and noted above it.

        When the text would be longer than `limit`, it says only as much as fits, from below.
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
    """Return the ranges `done`, ascending and all above `begin`, and `counts` and `dues` by offset,
    as text of at most `limit` characters.

    The lengths of what is open and what is done, in turn; then, behind a mark, the distances of
    what is counted and the counts; then, behind another, the earliest time when something is due,
    and the distances of what is, with how much later that is, and the whole delay. What would not
    fit is left out, from the end; counts take at most half of the room, and dues half of what is
    left then. Nothing done and nothing noted is the empty text.
    """
    room = limit - len(_MAGIC)
    counted = _pairs(begin, sorted((counts or {}).items()), room // 2 - len(_NEXT))
    if counted:
        room -= len(counted) + len(_NEXT)
    waiting = _waits(begin, dues, room // 2 - 2 * len(_NEXT)) if dues else ""
    if waiting:
        room -= len(waiting) + (1 if counted else 2) * len(_NEXT)
    parts: list[str] = []
    place = begin
    for start, stop in done:
        part = _number(start - place) + _number(stop - start)
        room -= len(part)
        if room < 0:
            break
        parts.append(part)
        place = stop
    if counted or waiting:
        parts += (_NEXT, counted)
    if waiting:
        parts += (_NEXT, waiting)
    return _MAGIC + "".join(parts) if parts else ""


def _pairs(place: int, items: Iterable[tuple[int, int]], room: int) -> str:
    text = ""
    for offset, count in items:
        part = _number(offset - place) + _number(count)
        if len(text) + len(part) > room:
            break
        text += part
        place = offset
    return text


def _waits(place: int, dues: Mapping[int, Due], room: int) -> str:
    # Rounded up: never early.
    tenths = {
        offset: (math.ceil(due.at * _TENTHS), math.ceil(due.delay * _TENTHS))
        for offset, due in sorted(dues.items())
    }
    first = min(at for at, _ in tenths.values())
    text, empty = _number(first), True
    for offset, (at, delay) in tenths.items():
        part = _number(offset - place) + _number(at - first) + _number(delay)
        if len(text) + len(part) > room:
            break
        text, place, empty = text + part, offset, False
    return "" if empty else text


def decode(begin: int, text: str) -> Sequence[Range]:
    """Return the ranges that `encode` wrote; nothing where the text is not its own."""
    numbers = _read(text, 0)
    ranges: list[Range] = []
    place = begin
    for index in range(0, len(numbers), 2):
        start = place + numbers[index]
        place = start + numbers[index + 1]
        if not numbers[index + 1] or (index and not numbers[index]) or place > _LARGEST:
            return ()
        ranges.append((start, place))
    return ranges


def decode_counts(begin: int, text: str) -> dict[int, int]:
    """Return the counts that `encode` wrote; none where the text is not its own."""
    numbers = _read(text, 1)
    counts: dict[int, int] = {}
    place = begin
    for index in range(0, len(numbers), 2):
        place += numbers[index]
        if place > _LARGEST:
            return {}
        counts[place] = numbers[index + 1]
    return counts


def decode_dues(begin: int, text: str) -> dict[int, Due]:
    """Return the due times that `encode` wrote; none where the text is not its own."""
    numbers = _read(text, 2, width=3, head=1)
    dues: dict[int, Due] = {}
    place = begin
    for index in range(1, len(numbers), 3):
        place += numbers[index]
        if place > _LARGEST:
            return {}
        at = numbers[0] + numbers[index + 1]
        dues[place] = Due(at / _TENTHS, numbers[index + 2] / _TENTHS)
    return dues


def _read(text: str, part: int, *, width: int = 2, head: int = 0) -> Sequence[int]:
    """Return the numbers in one part of the text, `width` by `width` after the first `head`;
    nothing if it is not well-formed."""
    if not text.startswith(_MAGIC):
        return ()
    parts = text[len(_MAGIC) :].split(_NEXT)
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
