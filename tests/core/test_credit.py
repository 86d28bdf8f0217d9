"""The credit window, adapted to the handlers step by step."""

from __future__ import annotations

from anymq.consuming.credit import MAX_WINDOW, Credit


def fetch(credit: Credit, count: int, now: float) -> None:
    """Report a fetch that was full while the handlers were idle."""
    credit.take(count, count)
    credit.fetched(full=True, starved=True, oldest_wait=0.0, now=now)


def look(credit: Credit, now: float) -> None:
    """Report a fetch without room."""
    credit.fetched(full=False, starved=True, oldest_wait=0.0, now=now)


def test_a_slow_handler_is_not_measured_as_a_fast_one() -> None:
    """A message that ends just after a measurement started long before it."""
    credit = Credit(concurrency=1, fixed=None)
    fetch(credit, 1, 100.0)
    for now in (101.0, 102.0, 103.0):
        look(credit, now)
    credit.free(1, 1)
    fetch(credit, 1, 103.001)
    assert credit.window == 1


def test_a_fast_handler_has_the_largest_window_within_some_fetches() -> None:
    credit = Credit(concurrency=1, fixed=None)
    now = 100.0
    for _ in range(6):
        count = credit.room
        fetch(credit, count, now)
        credit.free(count, count)
        now += count * 0.0002
    assert credit.window == MAX_WINDOW


def test_an_idle_handler_is_measured_from_when_it_has_work() -> None:
    credit = Credit(concurrency=1, fixed=None)
    for now in range(100, 160):
        look(credit, float(now))
    fetch(credit, 1, 160.0)
    credit.free(1, 1)
    fetch(credit, 1, 160.001)
    assert credit.window == 8
