"""Bodies of an exact size that begin with `HEAD`, or contain it as a field."""

from __future__ import annotations

from binascii import hexlify, unhexlify

from pydantic import BaseModel

from .contestant import HEAD, Item


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int
    price: float


class Order(BaseModel):
    """The typed payload. `head` is `HEAD` in hexadecimal; `note` pads to the size."""

    head: bytes
    number: str
    customer: str
    currency: str = "EUR"
    lines: list[Line]
    note: str = ""


def head_of(body: bytes, *, typed: bool) -> tuple[int, int, int]:
    """Return producer, number and intended send time in ns of a handled body."""
    producer, number, intended = HEAD.unpack_from(unhexlify(body) if typed else body)
    return producer, number, intended


class Bodies:
    """Creates the messages of one producer: `size` bytes each, with the same text after each head.

    With `keys`, message `n` has key number `n % keys`.
    """

    def __init__(self, producer: int, size: int, *, typed: bool = False, keys: int = 0) -> None:
        self._producer = producer
        self._typed = typed
        self._keys = [f"k-{number}" for number in range(keys)]
        if typed:
            self._before, self._after = _around_the_head(producer, size)
        else:
            self._before, self._after = b"", _filler(max(0, size - HEAD.size))

    def item(self, number: int, intended: int = 0) -> Item:
        """Return message `number`, with its intended send time in ns of the monotonic clock."""
        head = HEAD.pack(self._producer, number, intended)
        body = self._before + (hexlify(head) if self._typed else head) + self._after
        return Item(body=body, key=self._keys[number % len(self._keys)] if self._keys else None)

    def items(self, first: int, count: int) -> list[Item]:
        """Return the messages `first` … `first + count - 1`."""
        return [self.item(number) for number in range(first, first + count)]


def _around_the_head(producer: int, size: int) -> tuple[bytes, bytes]:
    mark = b"0" * (2 * HEAD.size)
    lines = [Line(sku="85123A", quantity=6, price=2.55), Line(sku="71053", quantity=2, price=3.39)]
    order = Order(head=mark, number="536365", customer=f"{17850 + producer}", lines=lines)
    missing = size - len(order.model_dump_json())
    order.note = _filler(max(0, missing)).decode()
    before, _, after = order.model_dump_json().encode().partition(mark)
    return before, after


def _filler(size: int) -> bytes:
    text = b"white hanging heart t-light holder, cream cupid hearts coat hanger, "
    return (text * (size // len(text) + 1))[:size]
