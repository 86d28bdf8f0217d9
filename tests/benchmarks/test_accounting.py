"""The account of a run contains exactly its losses, duplicates and reorders."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import pytest

from benchmarks.speed.accounting import ConsumerReport, Tally, account, steady_rate
from benchmarks.speed.payload import Bodies, Order, head_of


def handled(numbers: Iterable[int], *, count: int, producer: int = 0, keys: int = 0) -> Tally:
    tally = Tally(producers=producer + 1, count=count, keys=keys)
    bodies = Bodies(producer, 64)
    for number in numbers:
        tally.handle(bodies.item(number).body)
    return tally


def test_a_complete_run_has_no_losses_duplicates_or_reorders() -> None:
    tally = handled(range(100), count=100)
    assert tally.done()
    result = account([tally.report()], count=100)
    assert (result.messages, result.lost, result.duplicates, result.reorders) == (100, 0, 0, 0)


def test_missing_messages_are_lost() -> None:
    tally = handled(range(5, 100), count=100)
    assert not tally.done()
    assert account([tally.report()], count=100).lost == 5


def test_a_duplicate_does_not_replace_a_missing_message() -> None:
    tally = handled([0, 1, 1, 2], count=4)
    assert not tally.done()
    tally.handle(Bodies(0, 64).item(3).body)
    assert tally.done()
    result = account([tally.report()], count=4)
    assert (result.lost, result.duplicates) == (0, 1)


def test_a_duplicate_is_no_reorder_and_an_overtaken_message_is() -> None:
    result = account([handled([0, 1, 0, 3, 2], count=4).report()], count=4)
    assert (result.reorders, result.duplicates) == (1, 1)


def test_order_is_counted_per_key() -> None:
    turns = [1, 0, 3, 2, 5, 4]
    assert account([handled(turns, count=6, keys=2).report()], count=6).reorders == 0
    assert account([handled(turns, count=6).report()], count=6).reorders == 3


def test_consumers_share_the_messages() -> None:
    one, other = handled(range(0, 100, 2), count=100), handled(range(1, 100, 2), count=100)
    result = account([one.report(), other.report()], count=100)
    assert (result.lost, result.duplicates) == (0, 0)
    result = account([one.report(), other.report(), other.report()], count=100)
    assert (result.lost, result.duplicates) == (0, 50)


def test_each_producer_has_its_own_numbers() -> None:
    tally = Tally(producers=2, count=3)
    for item in chain(Bodies(0, 64).items(0, 3), Bodies(1, 64).items(0, 2)):
        tally.handle(item.body)
    result = account([tally.report()], count=3)
    assert (result.messages, result.lost) == (6, 1)


def test_typed_messages_are_counted_by_their_field() -> None:
    tally = Tally(producers=1, count=3, typed=True)
    for item in Bodies(0, 256, typed=True).items(0, 3):
        tally.handle(Order.model_validate_json(item.body).head)
    assert tally.done()
    assert account([tally.report()], count=3).lost == 0


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("size", [256, 4096, 65536])
def test_bodies_have_the_given_size_and_head(size: int, typed: bool) -> None:
    body = Bodies(7, size, typed=typed).item(41, 12345).body
    assert len(body) == size
    head = Order.model_validate_json(body).head if typed else body
    assert head_of(head, typed=typed) == (7, 41, 12345)


def test_the_rate_is_measured_between_a_tenth_and_nine_tenths() -> None:
    second = 1_000_000_000
    # Ten messages per mark: a slow start, then one mark per second, finally a burst.
    marks = [50 * second, *(second * (50 + n) for n in range(1, 9)), 58 * second + 1]
    seen = ConsumerReport(counts=[], reorders=0, marks=marks, step=10)
    assert steady_rate([seen]) == pytest.approx(10.0)
    assert steady_rate([seen, seen]) == pytest.approx(20.0)
    assert steady_rate([ConsumerReport(counts=[], reorders=0, marks=[], step=10)]) is None
