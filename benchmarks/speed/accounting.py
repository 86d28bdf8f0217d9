"""Sequence accounting: what was lost, repeated or overtaken, from the heads of what was handled.

It takes six bytes a message (twelve of a typed one), made before the clock starts.
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
"""How many times a run notes how far it is."""

ID = struct.Struct("<HI")
"""How `HEAD` begins: producer and number."""


class Account(BaseModel):
    """What became of the messages of one run, over all its consumers."""

    messages: int
    """Published and confirmed."""
    lost: int
    duplicates: int
    reorders: int
    """First deliveries, within one consumer, that came after a later message of their lane."""


class ConsumerReport(BaseModel):
    """What one consumer reports: how often it had each number of each producer."""

    counts: list[str]
    reorders: int
    marks: list[int]
    """The monotonic clock (ns) at every `step`-th delivery."""
    step: int


class Tally:
    """Notes what one consumer is handed. `handle` is the trivial handler of every contestant.

    There are `producers`, each with the numbers below `count`; a lane is a producer and, with
    `keys`, a key. While the clock runs the heads are only copied; they are read afterwards.
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
        # Written to, so that it is resident memory before the clock starts.
        self._heads = bytearray(b"\xff") * (self._width * self.expected)
        self._place = 0
        self._mark = self.step * self._width
        self._enough = self.expected * self._width

    @property
    def handled(self) -> int:
        """How many deliveries there were."""
        return self._place // self._width

    def handle(self, body: bytes) -> None:
        """Note one delivery."""
        start = self._place
        self._place = place = start + self._width
        self._heads[start:place] = body[: self._width]
        if place >= self._mark:
            self._mark += self.step * self._width
            self.marks.append(time.monotonic_ns())

    def done(self) -> bool:
        """Whether every message has come."""
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
    """Put together what the consumers of one group saw of `count` messages a producer."""
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
    """Return messages a second between these shares of all that was handled.

    Neither the start of the consumers nor the emptying of their buffers is part of it. None where
    there are too few marks to say.
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
