"""What travels between the services."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from anymq import Message

from .money import EXACT


class Event(BaseModel):
    """Everything is about one invoice, whose number is the key of every message."""

    model_config = ConfigDict(frozen=True)

    invoice: str


class Line(BaseModel):
    """One line of an invoice. `customer` is empty where nobody knows who bought."""

    model_config = ConfigDict(frozen=True)

    stock_code: str
    quantity: int
    price: Decimal
    customer: str


class InvoiceReceived(Event):
    """An invoice as the shop wrote it: an order, or the cancellation of one."""

    country: str
    lines: tuple[Line, ...]


class OrderPlaced(Event):
    """Somebody wants to buy."""

    country: str
    lines: tuple[Line, ...]


class PaymentDue(Event):
    """Sent when an order is placed, delivered when it should have been paid."""


class OrderExpired(Event):
    """Nobody will pay for this order: what was reserved for it is free again."""

    lines: tuple[Line, ...]
    reason: str


class OrderCancelled(Event):
    """Money goes back: `refund` is negative."""

    country: str
    refund: Decimal


class PaymentCaptured(Event):
    """The money is ours, after `attempts` attempts."""

    country: str
    amount: Decimal
    attempts: int


class StockReserved(Event):
    """The goods are set aside."""


class OrderShipped(Event):
    """Paid, reserved, and on its way."""


def total(lines: Iterable[Line]) -> Decimal:
    """Return the sum of quantity times price, to the last digit."""
    amount = Decimal(0)
    for line in lines:
        amount = EXACT.fma(line.quantity, line.price, amount)
    return amount


def event_id(cause: Message, event: type[Event]) -> str:
    """Return the id of the `event` that `cause` leads to.

    An invoice starts one flow, in which there is one event of each type. An id made of these two is
    the same however often a crash, or a duplicate, makes a service publish again.
    """
    return f"{cause.correlation_id or cause.id}/{event.__name__}"
