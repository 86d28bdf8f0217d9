"""Helpers that run the order system, as a program and in this process, and create its data."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.orders.events import InvoiceReceived, Line
from examples.orders.figures import Figures
from examples.orders.processes import Processes
from examples.orders.system import Outcome, run_orders
from examples.orders.view import Progress

ROOT = Path(__file__).parents[2]
HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate"]
HEADER += ["UnitPrice", "CustomerID", "Country"]
KEYS = {
    "orders_placed",
    "orders_cancelled",
    "payments_captured",
    "orders_shipped",
    "orders_expired",
    "dead_letters",
    "retries",
    "duplicates_filtered",
    "revenue",
    "refunds",
    "revenue_by_country",
    "reconciled",
}


@dataclass(frozen=True)
class Result:
    """Exit code and output of a run of the program."""

    code: int
    out: str
    err: str

    @property
    def figures(self) -> dict[str, Any]:
        """The JSON object on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def environment() -> dict[str, str]:
    """Return the environment without ANYMQ_URL."""
    return {name: value for name, value in os.environ.items() if name != "ANYMQ_URL"}


def program(*arguments: str, module: str = "examples.orders", timeout: float = 400) -> Result:
    """Run the program and wait for its end."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


async def in_memory(invoices: Sequence[InvoiceReceived]) -> Outcome:
    """Run the system in this process."""
    return await run_orders(
        "memory://", invoices, processes=False, observe=ignore, note=lambda text: None
    )


def ignore(progress: Progress, processes: Processes | None) -> None:
    """Ignore progress."""


def as_object(figures: Figures, *, duplicates: int = 0) -> dict[str, Any]:
    """Return the object that `--json` prints for reconciled `figures`."""
    return figures.shown() | {
        "revenue_by_country": figures.countries_shown(),
        "duplicates_filtered": duplicates,
        "reconciled": True,
    }


def row(
    invoice: str,
    quantity: object = 1,
    price: object = "1.00",
    customer: str = "17850.0",
    country: str = "France",
    code: str = "85123A",
    description: str = "A LAMP",
) -> list[str]:
    """Return one line of the file."""
    return [
        invoice,
        code,
        description,
        str(quantity),
        "2010-12-01 08:26:00",
        str(price),
        customer,
        country,
    ]


def write(file: Path, rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    """Write a CSV file as a spreadsheet would."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    file.write_bytes(text.getvalue().encode())
    return file


def invoice(number: str, *lines: Line, country: str = "France") -> InvoiceReceived:
    """Return an invoice, by default with one line."""
    return InvoiceReceived(invoice=number, country=country, lines=lines or (line(),))


def line(quantity: int = 2, price: str = "1.50", customer: str = "17850.0") -> Line:
    """Return a line of an invoice."""
    return Line.model_validate(
        {"stock_code": "A", "quantity": quantity, "price": price, "customer": customer}
    )
