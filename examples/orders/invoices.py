"""Reads the file of order lines, validates it, and groups lines into invoices."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path

from .events import InvoiceReceived, Line

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "UnitPrice", "CustomerID", "Country")
LONGEST = 100

_WHOLE = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_PRICE = re.compile(r"[+-]?(?:\d{1,12}(?:\.\d{0,30})?|\.\d{1,30})", re.ASCII)


class BadFile(Exception):
    """The file is unreadable or invalid; the message has the line and the reason."""


def read_invoices(file: Path, limit: int | None = None) -> list[InvoiceReceived]:
    """Return the first `limit` invoices of `file`, in order of first appearance.

    Lines of one invoice need not be adjacent; the country is that of the first line. The whole
    file is validated; raises `BadFile`.
    """
    countries: dict[str, str] = {}
    lines: dict[str, list[Line]] = {}
    for number, row in _rows(file):
        try:
            invoice, line = _invoice_number(row["InvoiceNo"]), _line(row)
        except ValueError as error:
            raise BadFile(f"{file}, line {number}: {error}") from None
        countries.setdefault(invoice, row["Country"])
        lines.setdefault(invoice, []).append(line)
    return [
        InvoiceReceived(invoice=invoice, country=countries[invoice], lines=tuple(its_lines))
        for invoice, its_lines in islice(lines.items(), limit)
    ]


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with the number of its first line."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        header = next(reader, [])
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise BadFile(f"{file}, line 1: there is no column {', '.join(missing)}")
        number = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise BadFile(
                    f"{file}, line {number}: {len(cells)} cells where the header has {len(header)}"
                )
            if cells:
                yield number, dict(zip(header, cells, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"{file}, line {reader.line_num}: {error}") from None


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise BadFile(f"{file}, line {number}: not UTF-8") from None


def _invoice_number(text: str) -> str:
    if not text.strip():
        raise ValueError("InvoiceNo is empty")
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"InvoiceNo is over {LONGEST} characters long, or not printable")
    return text


def _line(row: dict[str, str]) -> Line:
    quantity, price = row["Quantity"].strip(), row["UnitPrice"].strip()
    if not _WHOLE.fullmatch(quantity):
        raise ValueError(f"Quantity is not a whole number: {quantity[:40]!r}")
    if not _PRICE.fullmatch(price):
        raise ValueError(f"UnitPrice is not a number: {price[:40]!r}")
    return Line(
        stock_code=row["StockCode"],
        quantity=int(quantity),
        price=Decimal(price),
        customer=row["CustomerID"].strip(),
    )
