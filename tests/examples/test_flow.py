"""The whole system in one process: arbitrary data, faults, and the graph of its events."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymq import MessageTooLarge, Retry
from examples.orders.feed import feed
from examples.orders.invoices import read_invoices
from examples.orders.processes import Processes, ServiceFailed
from examples.orders.reconcile import figures_of_file
from examples.orders.run import Run
from examples.orders.serve import application
from examples.orders.services import SERVICES
from examples.orders.state import State
from examples.orders.system import settle
from examples.orders.view import View
from tests.examples.support import in_memory, invoice, line, row, write

PROMPT = Retry(attempts=10, initial=0.01)

numbers = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8
)
texts = st.text(max_size=12)
decimals = st.decimals(-20, 20, allow_nan=False, places=3) | st.just(Decimal(0))


@st.composite
def files(draw: st.DrawFn) -> list[list[str]]:
    """Generate rows of any text for few invoices, in any order, some of them twice."""
    invoices = st.sampled_from([*draw(st.lists(numbers, max_size=12)), "C1", "A563185"])
    rows = st.builds(
        row,
        invoice=invoices,
        quantity=st.integers(-5, 50),
        price=decimals,
        customer=st.sampled_from(["17850.0", "17850", "x y", "", "  ", "0"]),
        country=texts,
        code=texts,
        description=texts,
    )
    some = draw(st.lists(rows, max_size=25))
    return some + draw(st.lists(st.sampled_from(some), max_size=3)) if some else some


@settings(max_examples=10)
@given(rows=files(), mark=st.booleans())
def test_any_file_is_reconciled(rows: list[list[str]], mark: bool) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.orders.payment.RETRY", PROMPT)
        file = write(Path(folder) / "a.csv", rows)
        file.write_bytes((b"\xef\xbb\xbf" if mark else b"") + file.read_bytes())
        outcome = asyncio.run(in_memory(read_invoices(file)))
        assert outcome.missing is None
        assert outcome.figures.differences(figures_of_file(file)) == []
        assert outcome.figures.duplicates_filtered == 0


async def test_events_form_a_graph_by_their_causes(tmp_path: Path) -> None:
    invoices = [invoice("1"), invoice("2", line(customer="")), invoice("C3", line(-1))]
    run = Run("memory://", "test", tmp_path)
    async with application(run, *SERVICES.values()) as app, View(run, len(invoices)) as view:
        await feed(app.broker, run, invoices)
        await settle(view, lambda progress: None)
        await feed(app.broker, run, invoices)  # a second time, which adds no events
        await asyncio.sleep(0.2)
        assert view.progress().events == 4 + 1 + 1 + 2
    async with State(run.file("ledger")) as state:
        query = "SELECT id, type, invoice, cause, correlation FROM events"
        events = {row[0]: row[1:] for row in state.db.execute(query)}
    for id, (kind, number, cause, correlation) in events.items():
        root = f"test/{number}"
        assert correlation == root
        assert id in (f"{root}/{kind}", f"{root}/OrderPlaced/rejected")
        while cause != root:
            cause = events[cause][2]
    assert events["test/1/OrderShipped"][2] in (
        "test/1/PaymentCaptured",
        "test/1/StockReserved",
    )


async def test_a_stalled_run_reports_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.orders.system.STALL", 0.5)
    monkeypatch.delitem(SERVICES, "stock")
    outcome = await in_memory([invoice("7"), invoice("C8")])
    assert outcome.missing is not None
    assert "1 of 2 invoices are not settled" in outcome.missing
    assert "0 reserved and 0 shipped (unsettled: 7)" in outcome.missing
    assert outcome.figures.payments_captured == 1


async def test_an_invoice_that_is_too_large_is_an_error() -> None:
    large = invoice("1", *[line()] * 20_000)
    with pytest.RaisesGroup(MessageTooLarge):
        await in_memory([large])


async def test_a_service_that_keeps_dying_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.orders.processes.SERVICES", ["nonesuch"])
    monkeypatch.setattr("examples.orders.processes.LONGEST_PAUSE", 0.0)
    notes: list[str] = []
    run = Run("sqlite:///x.db", "test", tmp_path)
    with pytest.RaisesGroup(
        pytest.RaisesExc(ServiceFailed, match="nonesuch died 10 times in succession")
    ):
        async with Processes(run, notes.append):
            await asyncio.sleep(60)
    assert notes
    assert "died of exit code 1" in notes[0]
