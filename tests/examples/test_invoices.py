"""Reading the file: accepted formats, and the errors for invalid files."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from examples.orders.invoices import BadFile, read_invoices
from tests.examples.support import HEADER, row, write

FIRST = ",".join(HEADER)


def test_lines_of_an_invoice_need_not_be_adjacent(tmp_path: Path) -> None:
    rows = [row("1", 1), row("2", 2), row("1", 3, country="Spain"), row("1", 3, country="Spain")]
    first, second = read_invoices(write(tmp_path / "a.csv", rows))
    assert [line.quantity for line in first.lines] == [1, 3, 3]
    assert first.country == "France"
    assert second.invoice == "2"


def test_limit_counts_invoices_and_takes_all_their_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", [row("1"), row("2"), row("3"), row("1")])
    assert [(i.invoice, len(i.lines)) for i in read_invoices(file, 2)] == [("1", 2), ("2", 1)]
    assert read_invoices(file, 0) == []


def test_a_byte_order_mark_other_columns_and_another_order_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "\ufeffCountry,CustomerID,UnitPrice,Quantity,StockCode,InvoiceNo,Colour\r\n"
        '"Côte d\'Ivoire", 7 , 0.001 , -3 ,"a ""b""\nc",A563185,red\r\n\r\n'
    )
    (invoice,) = read_invoices(file)
    assert (invoice.invoice, invoice.country) == ("A563185", "Côte d'Ivoire")
    (line,) = invoice.lines
    assert line.stock_code == 'a "b"\nc'
    assert (line.quantity, line.price, line.customer) == (-3, Decimal("0.001"), "7")


def test_a_header_alone_is_no_invoice(tmp_path: Path) -> None:
    assert read_invoices(write(tmp_path / "a.csv", [])) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: there is no column InvoiceNo, StockCode, Quantity"),
        (FIRST.replace("UnitPrice", "Price"), "line 1: there is no column UnitPrice"),
        (f"{FIRST}\n1,A,x,two,d,1.0,7,F", "line 2: Quantity is not a whole number: 'two'"),
        (f"{FIRST}\n1,A,x,1.5,d,1.0,7,F", "line 2: Quantity is not a whole number: '1.5'"),
        (f"{FIRST}\n1,A,x,,d,1.0,7,F", "line 2: Quantity is not a whole number: ''"),
        (f"{FIRST}\n1,A,x,1_0,d,1.0,7,F", "line 2: Quantity is not a whole number: '1_0'"),
        (f"{FIRST}\n1,A,x,1,d,NaN,7,F", "line 2: UnitPrice is not a number: 'NaN'"),
        (f'{FIRST}\n1,A,x,1,d,"1,50",7,F', "line 2: UnitPrice is not a number: '1,50'"),
        (f"{FIRST}\n1,A,x,1,d,,7,F", "line 2: UnitPrice is not a number: ''"),
        (f"{FIRST}\n1,A,x,1,d,1e400,7,F", "line 2: UnitPrice is not a number: '1e400'"),
        (f'{FIRST}\n1,A,"x\ny",1,d,1.0,7,F\n2,A,x,1,d,?,7,F', "line 4: UnitPrice"),
        (f"{FIRST}\n1,A,x,1,d,1.0,7", "line 2: 7 cells where the header has 8"),
        (f"{FIRST}\n1,A,x,1,d,1.0,7,F,G", "line 2: 9 cells where the header has 8"),
        (f"{FIRST}\n,A,x,1,d,1.0,7,F", "line 2: InvoiceNo is empty"),
        (f'{FIRST}\n"1\n",A,x,1,d,1.0,7,F', "line 2: InvoiceNo is over 100 characters"),
        (f'{FIRST}\n1,A,"x,1,d,1.0,7,F', "line 2: unexpected end of data"),
    ],
)
def test_an_error_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(BadFile) as raised:
        read_invoices(file)
    assert str(raised.value).startswith(f"{file}, {message}")
    assert "\n" not in str(raised.value)


def test_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(f"{FIRST}\n1,A,x,1,d,1.0,7,Côte".encode("latin-1"))
    with pytest.raises(BadFile, match="line 2: not UTF-8"):
        read_invoices(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        read_invoices(tmp_path / "a.csv")
