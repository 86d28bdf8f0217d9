"""Amounts of money, and the figures computed from the file alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from examples.orders.events import total
from examples.orders.gateway import declines_twice
from examples.orders.money import pence
from examples.orders.reconcile import figures_of_file
from tests.examples.support import ROOT, line, row, write

DATA = ROOT / "examples" / "orders" / "data" / "lines.csv"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.005", "0.01"),
        ("-0.005", "-0.01"),
        ("2.675", "2.68"),
        ("-0.004", "0.00"),
        ("1e3", "1000.00"),
        ("123456789012345678901234567890.125", "123456789012345678901234567890.13"),
    ],
)
def test_money_is_rounded_half_up(amount: str, shown: str) -> None:
    assert pence(Decimal(amount)) == shown


def test_sums_are_exact() -> None:
    lines = [line(999_999_999, "999999999999.999999999999"), line(1, "0." + "0" * 29 + "1")]
    assert str(total(lines)) == "999999998999999999999.999000000001000000000000000001"


def test_the_figures_of_the_sample() -> None:
    figures = figures_of_file(DATA)
    assert (figures.orders_placed, figures.orders_cancelled) == (2189, 104)
    assert (figures.payments_captured, figures.dead_letters) == (2022, 167)
    assert figures.orders_expired == 6
    assert (pence(figures.revenue), pence(figures.refunds)) == ("109316.08", "-5241.78")
    assert len(figures.revenue_by_country) == 27


def test_the_figures_of_the_corrected_sample() -> None:
    figures = figures_of_file(DATA, mended=True)
    assert (figures.orders_placed, figures.payments_captured) == (2189, 2189 - 6)
    assert (figures.orders_expired, figures.dead_letters) == (6, 6)


def test_the_figures_of_a_file(tmp_path: Path) -> None:
    declined = next(number for number in map(str, range(100)) if declines_twice(number))
    steady = next(number for number in map(str, range(100)) if not declines_twice(number))
    rows = [
        row(declined, 2, "1.25"),
        row("C1", -1, "0.75"),
        row(steady, 1, "0.105", country="Österreich"),
        row("A1", 1, "-11062.06"),
        row("free", 1, "0.0"),
        row("nobody", 1, "1.0", customer=" "),
        row("back", -1, "1.0"),
        row("c2", 3, "1.0", country=""),
        row(declined, 2, "1.25"),
    ]
    figures = figures_of_file(write(tmp_path / "a.csv", rows))
    assert figures.shown() == {
        "orders_placed": 7,
        "orders_cancelled": 1,
        "payments_captured": 3,
        "orders_shipped": 3,
        "orders_expired": 3,
        "dead_letters": 4,
        "retries": 2 + 2 * declines_twice("c2"),
        "duplicates_filtered": 0,
        "revenue": "8.11",
        "refunds": "-0.75",
    }
    assert figures.countries_shown() == {"": "3.00", "France": "5.00", "Österreich": "0.11"}


def test_differences_name_each_figure() -> None:
    theirs = figures_of_file(DATA, 50)
    ours = replace(
        theirs,
        orders_shipped=3,
        duplicates_filtered=9,
        revenue_by_country={**theirs.revenue_by_country, "Atlantis": Decimal(1)},
    )
    assert theirs.differences(theirs) == []
    assert ours.differences(theirs) == [
        f"orders_shipped: 3, not {theirs.orders_shipped}",
        "revenue of Atlantis: 1.00, not 0",
    ]
