"""Queries of the ledger: progress and figures of a run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from .figures import Figures
from .ledger import SCHEMA
from .money import EXACT
from .payment import NO_CUSTOMER
from .run import Run
from .services import SERVICES
from .state import State

# An order is settled when the ledger has all its events.
SETTLED = f"""
(cancelled OR (placed AND (expired OR reason = '{NO_CUSTOMER}') AND rejected AND reserved)
OR (placed AND captured AND reserved AND shipped))
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Number of invoices, of the `expected` ones, that reached each step."""

    expected: int
    events: int
    known: int
    placed: int
    cancelled: int
    captured: int
    reserved: int
    shipped: int
    rejected: int
    expired: int
    mended: int
    settled: int


class View:
    """The state file of the ledger, read while the ledger writes to it."""

    def __init__(self, run: Run, expected: int) -> None:
        self._run = run
        self._expected = expected
        self._state = State(run.file("ledger"), SCHEMA)

    async def __aenter__(self) -> Self:
        await self._state.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._state.__aexit__(*exc)

    def progress(self) -> Progress:
        """Return the progress of all invoices."""
        query = f"""
        SELECT (SELECT count(*) FROM events), count(*),
          total(placed), total(cancelled), total(captured), total(reserved), total(shipped),
          total(rejected), total(expired), total(rejected AND captured AND shipped),
          total({SETTLED})
        FROM orders
        """
        return Progress(self._expected, *map(int, self._state.db.execute(query).fetchone()))

    def unsettled(self) -> list[str]:
        """Return the known invoices that are not settled."""
        query = f"SELECT invoice FROM orders WHERE NOT {SETTLED} ORDER BY invoice"
        return [invoice for (invoice,) in self._state.db.execute(query)]

    async def figures(self) -> Figures:
        """Return the figures of the run."""
        now = self.progress()
        query = "SELECT total(attempts - captured) FROM orders"
        (retries,) = self._state.db.execute(query).fetchone()
        revenue = refunds = Decimal(0)
        by_country: defaultdict[str, Decimal] = defaultdict(Decimal)
        query = "SELECT captured, country, amount FROM orders WHERE captured OR cancelled"
        for captured, country, amount in self._state.db.execute(query):
            if captured:
                revenue = EXACT.add(revenue, Decimal(amount))
                by_country[country] = EXACT.add(by_country[country], Decimal(amount))
            else:
                refunds = EXACT.add(refunds, Decimal(amount))
        return Figures(
            orders_placed=now.placed,
            orders_cancelled=now.cancelled,
            payments_captured=now.captured,
            orders_shipped=now.shipped,
            orders_expired=now.expired,
            dead_letters=now.rejected - now.mended,
            retries=int(retries),
            duplicates_filtered=await self._duplicates(),
            revenue=revenue,
            refunds=refunds,
            revenue_by_country=dict(by_country),
        )

    async def _duplicates(self) -> int:
        """Return the number of duplicates filtered by all services."""
        count = 0
        for service in SERVICES:
            async with State(self._run.file(service)) as state:
                count += state.duplicates
        return count
