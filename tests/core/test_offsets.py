"""`OffsetTracker` against a model: acks in any order, crashes and gaps at any position."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anymq.driver import Due
from anymq.driver.offsets import (
    MAX_METADATA,
    OffsetTracker,
    Range,
    decode,
    decode_counts,
    decode_dues,
    encode,
)


@st.composite
def _done_ranges(draw: st.DrawFn) -> tuple[int, list[Range]]:
    begin = draw(st.integers(0, 2**40))
    lengths = draw(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), max_size=60))
    ranges, place = [], begin
    for still_open, done in lengths:
        start = place + still_open
        place = start + done
        ranges.append((start, place))
    return begin, ranges


@given(_done_ranges())
def test_ranges_survive_their_text_form(item: tuple[int, list[Range]]) -> None:
    begin, ranges = item
    assert list(decode(begin, encode(begin, ranges))) == ranges


@given(_done_ranges(), st.integers(0, 120))
def test_ranges_that_do_not_fit_are_omitted_from_the_end(
    item: tuple[int, list[Range]], limit: int
) -> None:
    begin, ranges = item
    text = encode(begin, ranges, limit)
    kept = list(decode(begin, text))
    assert len(text) <= limit
    assert kept == ranges[: len(kept)]


@given(st.integers(0, 2**62), st.text(max_size=80) | st.text("anymq1:ABgh_-9", max_size=80))
def test_foreign_metadata_is_no_error(begin: int, text: str) -> None:
    for candidate in (text, "anymq1:" + text):
        place = begin
        for start, stop in decode(begin, candidate):
            assert place <= start < stop
            place = stop


def test_every_second_offset_of_thousands_fits() -> None:
    tracker = OffsetTracker(1_000_000)
    for offset in range(1_000_000, 1_003_900):
        assert tracker.deliver(offset)
    for offset in range(1_000_001, 1_003_900, 2):
        assert tracker.done(offset)
    watermark, text = tracker.commit()
    assert watermark == 1_000_000
    assert len(text) <= MAX_METADATA
    assert text.isascii()
    assert len(decode(watermark, text)) == 1950


def test_the_watermark_never_passes_a_gap_in_the_acks() -> None:
    tracker = OffsetTracker(1)
    for offset in (1, 2, 3):
        tracker.deliver(offset)
    tracker.done(3)
    assert tracker.commit() == (1, encode(1, [(3, 4)]))
    tracker.done(1)
    assert tracker.commit() == (2, encode(2, [(3, 4)]))
    tracker.done(2)
    assert tracker.commit() == (4, "")


def test_an_offset_below_the_position_is_refused() -> None:
    tracker = OffsetTracker(5)
    tracker.deliver(7)
    with pytest.raises(ValueError, match="below"):
        tracker.deliver(7)


def test_a_closed_tracker_settles_nothing() -> None:
    tracker = OffsetTracker(0)
    tracker.deliver(0)
    tracker.close()
    assert not tracker.is_open(0)
    assert not tracker.done(0)
    assert tracker.watermark == 0


def test_restored_offsets_are_committed_again_before_they_are_read() -> None:
    tracker = OffsetTracker(10, encode(10, [(12, 20), (25, 30)]))
    tracker.deliver(10)
    assert tracker.commit() == (10, encode(10, [(12, 20), (25, 30)]))
    tracker.done(10)
    assert tracker.commit() == (11, encode(11, [(12, 20), (25, 30)]))
    tracker.deliver(11)
    tracker.done(11)
    assert tracker.commit() == (20, encode(20, [(25, 30)]))


@given(_done_ranges(), st.dictionaries(st.integers(0, 5000), st.integers(1, 99), max_size=200))
def test_counts_are_stored_with_the_ranges(
    item: tuple[int, list[Range]], distances: dict[int, int]
) -> None:
    begin, ranges = item
    counts = {begin + distance: count for distance, count in distances.items()}
    text = encode(begin, ranges, counts=counts)
    assert list(decode(begin, text)) == ranges
    assert decode_counts(begin, text) == counts
    for limit in (0, 9, 20, 100):
        short = encode(begin, ranges, limit, counts)
        assert len(short) <= limit
        assert decode_counts(begin, short).items() <= counts.items()
        assert list(decode(begin, short)) == ranges[: len(decode(begin, short))]


def test_a_count_lasts_until_its_message_is_settled() -> None:
    first = OffsetTracker(5)
    for offset in (5, 6, 7):
        first.deliver(offset)
    assert first.keep(6, 2)
    first.done(7)
    second = OffsetTracker(*first.commit())
    assert (second.count(5), second.count(6)) == (0, 2)
    assert second.commit() == first.commit(), "also before it is read again"
    for offset in (5, 6):
        second.deliver(offset)
        second.done(offset)
    assert not second.keep(6, 3)
    assert second.commit() == (8, "")


NOW = 1_700_000_000.0
DUES = st.builds(
    lambda left, delay: Due(NOW + left / 10, delay / 10), st.integers(0, 9999), st.integers(0, 9999)
)


@given(
    _done_ranges(),
    st.dictionaries(st.integers(0, 5000), st.integers(1, 99), max_size=50),
    st.dictionaries(st.integers(0, 5000), DUES, max_size=50),
)
def test_due_times_are_stored_with_the_counts(
    item: tuple[int, list[Range]], counted: dict[int, int], waiting: dict[int, Due]
) -> None:
    begin, ranges = item
    counts = {begin + distance: count for distance, count in counted.items()}
    dues = {begin + distance: due for distance, due in waiting.items()}
    text = encode(begin, ranges, counts=counts, dues=dues)
    assert list(decode(begin, text)) == ranges
    assert decode_counts(begin, text) == counts
    assert decode_dues(begin, text) == dues
    for limit in (0, 9, 20, 100):
        short = encode(begin, ranges, limit, counts, dues)
        assert len(short) <= limit
        assert decode_counts(begin, short).items() <= counts.items()
        assert decode_dues(begin, short).items() <= dues.items()
        assert list(decode(begin, short)) == ranges[: len(decode(begin, short))]


def test_a_due_time_is_rounded_up_and_lasts_until_the_next_attempt() -> None:
    first = OffsetTracker(5)
    for offset in (5, 6):
        first.deliver(offset)
    assert first.keep(5, 1, Due(NOW + 0.01, 0.01))
    assert first.keep(6, 1, Due(NOW + 8, 8))
    second = OffsetTracker(*first.commit())
    assert (second.due(5), second.due(6)) == (Due(NOW + 0.1, 0.1), Due(NOW + 8, 8))
    for offset in (5, 6):
        second.deliver(offset)
    assert second.commit() == first.commit()
    second.keep(5, 2)
    second.done(6)
    third = OffsetTracker(*second.commit())
    assert (third.due(5), third.due(6)) == (None, None)


def test_hundreds_of_due_times_fit() -> None:
    tracker = OffsetTracker(0)
    for offset in range(3000):
        tracker.deliver(offset)
    for offset in range(0, 600, 3):
        tracker.keep(offset, 3, Due(NOW + offset % 60, 60))
    restored = OffsetTracker(*tracker.commit())
    assert all(restored.due(offset) for offset in range(0, 600, 3))


class Log(RuleBasedStateMachine):
    """A partition with gaps, its successive readers, and the last commit."""

    @initialize(
        seed=st.integers(0, 2**32),
        first=st.integers(0, 2**40),
        limit=st.integers(0, 60) | st.just(MAX_METADATA),
    )
    def begin(self, seed: int, first: int, limit: int) -> None:
        dice = random.Random(seed)
        self.limit = limit
        self.log = sorted({first + dice.randrange(120) for _ in range(70)})
        self.done: set[int] = set()
        self.remembered: set[int] = set()
        self.committed = (first, "")
        self.restart()

    def restart(self) -> None:
        self.tracker = OffsetTracker(*self.committed)
        self.open: list[int] = []
        self.unread = [offset for offset in self.log if offset >= self.committed[0]]

    @precondition(lambda self: self.unread)
    @rule()
    def read(self) -> None:
        offset = self.unread.pop(0)
        if self.tracker.deliver(offset):
            assert offset not in self.remembered, "completed and committed, yet delivered again"
            self.open.append(offset)
        else:
            assert offset in self.done, "lost"

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.open))
        assert self.tracker.is_open(offset)
        assert self.tracker.done(offset)
        assert not self.tracker.done(offset)
        self.open.remove(offset)
        self.done.add(offset)

    @rule()
    def commit(self) -> None:
        watermark, text = self.tracker.commit(self.limit)
        assert len(text) <= self.limit
        assert watermark >= self.committed[0]
        self.committed = (watermark, text)
        ranges = decode(watermark, text)
        self.remembered = {
            offset
            for offset in self.log
            if offset < watermark or any(start <= offset < stop for start, stop in ranges)
        }
        assert self.remembered <= self.done, "committed an offset that was never acked"
        if self.limit == MAX_METADATA:
            assert self.remembered == self.done, "forgot an ack although there was room"

    @rule()
    def crash(self) -> None:
        self.tracker.close()
        self.done = set(self.remembered)  # uncommitted acks are read again
        self.restart()

    @invariant()
    def consistent(self) -> None:
        if not hasattr(self, "tracker"):
            return
        below = [offset for offset in self.log if offset < self.tracker.watermark]
        assert set(below) <= self.done
        assert self.tracker.open == len(self.open)
        assert self.tracker.span >= len(self.open)


TestLog = Log.TestCase
