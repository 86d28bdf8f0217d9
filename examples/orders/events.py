"""The events exchanged by the services."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from anymq import Message

from .money import EXACT


class Event(BaseModel):
    """An event of one invoice; the invoice number is the message key."""

    model_config = ConfigDict(frozen=True)

    invoice: str


class Line(BaseModel):
    """One line of an invoice; `customer` is empty if unknown."""

    model_config = ConfigDict(frozen=True)

    stock_code: str
    quantity: int
    price: Decimal
    customer: str


class InvoiceReceived(Event):
    """An invoice from the shop: an order or a cancellation."""

    country: str
    lines: tuple[Line, ...]


class OrderPlaced(Event):
    """An order was placed."""

    country: str
    lines: tuple[Line, ...]


class PaymentDue(Event):
    """A reminder published when an order is placed, delivered when its payment is due."""


class OrderExpired(Event):
    """An order cannot be paid; its reserved stock is released."""

    lines: tuple[Line, ...]
    reason: str


class OrderCancelled(Event):
    """An order was cancelled; `refund` is negative."""

    country: str
    refund: Decimal


class PaymentCaptured(Event):
    """The payment was captured after `attempts` attempts."""

    country: str
    amount: Decimal
    attempts: int


class StockReserved(Event):
    """The stock of an order was reserved."""


class OrderShipped(Event):
    """A paid order with reserved stock was shipped."""


def total(lines: Iterable[Line]) -> Decimal:
    """Return the exact sum of quantity times price."""
    amount = Decimal(0)
    for line in lines:
        amount = EXACT.fma(line.quantity, line.price, amount)
    return amount


def event_id(cause: Message, event: type[Event]) -> str:
    """Return the id of an `event` caused by the message `cause`.

    The flow of an invoice has at most one event of each type, so flow and type form a stable id. A
    service that publishes again, after a crash or for a duplicate, uses the same id.
    """
    return f"{cause.correlation_id or cause.id}/{event.__name__}"
