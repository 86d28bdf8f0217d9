"""Delivery accounting: losses, duplicates and reorders, from the heads of handled bodies.

It needs six bytes a message (twelve for typed ones), allocated before timing starts.
"""

from __future__ import annotations

import base64
import struct
import time
import zlib
from array import array
from binascii import unhexlify
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

MARKS = 200
"""Number of times that a consumer records its progress in a run."""

ID = struct.Struct("<HI")
"""The first fields of `HEAD`: producer and number."""


class Account(BaseModel):
    """The deliveries of one run, over all its consumers."""

    messages: int
    """Published and confirmed."""
    lost: int
    duplicates: int
    reorders: int
    """First deliveries within one consumer that followed a later message of their lane."""


class ConsumerReport(BaseModel):
    """The report of one consumer: its number of deliveries of each message of each producer."""

    counts: list[str]
    reorders: int
    marks: list[int]
    """The monotonic clock (ns) at every `step`-th delivery."""
    step: int


class Tally:
    """Records the deliveries of one consumer. `handle` is the trivial handler of every contestant.

    Each of `producers` numbers its messages from 0 to `count - 1`. A lane is a producer and, with
    `keys`, a key. Heads are only copied during the timed part and evaluated afterwards.
    """

    def __init__(self, *, producers: int, count: int, keys: int = 0, typed: bool = False) -> None:
        self.expected = producers * count
        self.step = max(1, self.expected // MARKS)
        self.marks: list[int] = []
        self._producers = producers
        self._count = count
        self._lanes = max(1, keys)
        self._typed = typed
        self._width = ID.size * (2 if typed else 1)
        # Written to, so that it is resident memory before timing starts.
        self._heads = bytearray(b"\xff") * (self._width * self.expected)
        self._place = 0
        self._mark = self.step * self._width
        self._enough = self.expected * self._width

    @property
    def handled(self) -> int:
        """Number of deliveries so far."""
        return self._place // self._width

    def handle(self, body: bytes) -> None:
        """Record one delivery."""
        start = self._place
        self._place = place = start + self._width
        self._heads[start:place] = body[: self._width]
        if place >= self._mark:
            self._mark += self.step * self._width
            self.marks.append(time.monotonic_ns())

    def done(self) -> bool:
        """Return whether every message has been delivered."""
        if self._place < self._enough:
            return False
        missing = self.expected - sum(map(bool, b"".join(self._read()[0])))
        self._enough = self._place + missing * self._width
        return not missing

    def report(self) -> ConsumerReport:
        """Return the report of this consumer."""
        counts, reorders = self._read()
        packed = [base64.b64encode(zlib.compress(bytes(one))).decode() for one in counts]
        return ConsumerReport(counts=packed, reorders=reorders, marks=self.marks, step=self.step)

    def _read(self) -> tuple[list[bytearray], int]:
        counts = [bytearray(self._count) for _ in range(self._producers)]
        last = [array("q", [-1]) * self._lanes for _ in counts]
        reorders = 0
        heads = bytes(self._heads[: self._place])
        for producer, number in ID.iter_unpack(unhexlify(heads) if self._typed else heads):
            if counts[producer][number]:
                counts[producer][number] = min(255, counts[producer][number] + 1)
                continue
            counts[producer][number] = 1
            lane = number % self._lanes
            reorders += number < last[producer][lane]
            last[producer][lane] = max(number, last[producer][lane])
        return counts, reorders


def account(reports: Sequence[ConsumerReport], *, count: int) -> Account:
    """Combine the reports of a group's consumers, for `count` messages per producer."""
    lost = duplicates = messages = 0
    for packed in zip(*(report.counts for report in reports), strict=True):
        messages += count
        for times in _summed(packed):
            lost += times == 0
            duplicates += max(0, times - 1)
    return Account(
        messages=messages,
        lost=lost,
        duplicates=duplicates,
        reorders=sum(report.reorders for report in reports),
    )


def _summed(packed: Iterable[str]) -> Iterable[int]:
    lists = [zlib.decompress(base64.b64decode(one)) for one in packed]
    return lists[0] if len(lists) == 1 else map(sum, zip(*lists, strict=True))


def steady_rate(
    reports: Sequence[ConsumerReport], *, first: float = 0.1, last: float = 0.9
) -> float | None:
    """Return the rate in messages/s between the shares `first` and `last` of all deliveries.

    This excludes starting the consumers and emptying their buffers. Return None if there are too
    few marks.
    """
    marks = sorted((mark, report.step) for report in reports for mark in report.marks)
    total = sum(step for _, step in marks)
    handled = 0
    began: tuple[int, int] | None = None
    for mark, step in marks:
        handled += step
        if began is None and handled >= first * total:
            began = mark, handled
        elif began is not None and handled >= last * total:
            seconds = (mark - began[0]) / 1e9
            return (handled - began[1]) / seconds if seconds > 0 else None
    return None
