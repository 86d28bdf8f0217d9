"""The expected figures, computed from the file without services or messages."""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import Decimal, localcontext
from itertools import islice
from pathlib import Path

from .figures import Figures
from .gateway import DECLINES, declines_twice


def figures_of_file(file: Path, limit: int | None = None, *, mended: bool = False) -> Figures:
    """Return the expected figures of the first `limit` invoices of `file`.

    With `mended`, orders that only lack a customer are assigned to a guest.
    """
    invoices: dict[str, list[dict[str, str]]] = {}
    with file.open(encoding="utf-8-sig", newline="") as rows:
        for row in csv.DictReader(rows):
            invoices.setdefault(row["InvoiceNo"], []).append(row)
    with localcontext() as exact:
        exact.prec = 100
        return _figures(dict(islice(invoices.items(), limit)), mended)


def _figures(invoices: dict[str, list[dict[str, str]]], mended: bool) -> Figures:
    cancelled = expired = retries = 0
    refunds = Decimal(0)
    captured: list[Decimal] = []
    by_country: defaultdict[str, Decimal] = defaultdict(Decimal)
    for invoice, rows in invoices.items():
        amount = sum((int(row["Quantity"]) * Decimal(row["UnitPrice"]) for row in rows), Decimal(0))
        if invoice[0] == "C":
            cancelled += 1
            refunds += amount
        elif not all(map(_has_a_value, rows)):
            expired += 1
        elif mended or all(row["CustomerID"].strip() for row in rows):
            captured.append(amount)
            by_country[rows[0]["Country"]] += amount
            retries += DECLINES if declines_twice(invoice) else 0
    placed = len(invoices) - cancelled
    return Figures(
        orders_placed=placed,
        orders_cancelled=cancelled,
        payments_captured=len(captured),
        orders_shipped=len(captured),
        orders_expired=expired,
        dead_letters=placed - len(captured),
        retries=retries,
        duplicates_filtered=0,
        revenue=sum(captured, Decimal(0)),
        refunds=refunds,
        revenue_by_country=dict(by_country),
    )


def _has_a_value(row: dict[str, str]) -> bool:
    return int(row["Quantity"]) > 0 and Decimal(row["UnitPrice"]) > 0
