"""One run of the system: where its messages travel and where its services keep their state."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from anymq import Retry, Topic

from .events import (
    Event,
    InvoiceReceived,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    PaymentDue,
    StockReserved,
)

E = TypeVar("E", bound=Event)

CONCURRENCY = 32
"""Messages that a handler works on at a time."""

LEASE = 5.0
"""Seconds after which what a crashed service held is given to another."""

DUE = timedelta(seconds=1)
"""How long after it was placed an order has to be paid: a shop gives days."""

PARTITIONS = 4
"""How many members of an ordered group can share what happens to orders."""

RETRY = Retry(attempts=10, cap=60)
"""More attempts than usual: every crash counts as one."""


class Run:
    """The topics carry the run's `id`, so that what earlier runs left on a broker is not seen."""

    def __init__(self, url: str, id: str, folder: Path) -> None:
        self.url = url
        self.id = id
        self.folder = folder
        self.received = self._topic("received", InvoiceReceived)
        # What begins and ends an order is on one topic: stock needs the two in this order.
        self.placed = Topic[OrderPlaced | OrderExpired](
            f"orders-{id}.placed",
            OrderPlaced | OrderExpired,
            partitions=PARTITIONS,
            retention=timedelta(days=1),
        )
        self.due = self._topic("due", PaymentDue)
        self.cancelled = self._topic("cancelled", OrderCancelled)
        self.captured = self._topic("captured", PaymentCaptured)
        self.reserved = self._topic("reserved", StockReserved)
        self.shipped = self._topic("shipped", OrderShipped)
        # The dead letters of payment: a topic like any other, which anymq made.
        self.rejected = Topic(f"{self.placed.name}.payment.dlq", OrderPlaced)

    def file(self, service: str) -> Path:
        """Return the file in which `service` keeps its state."""
        return self.folder / f"{service}.db"

    def seen(self, service: str) -> str:
        """Return the URL of the store in which `service` remembers what it has handled."""
        return f"sqlite:///{quote(str(self.folder))}/{service}-seen.db?synchronous=NORMAL"

    def _topic(self, name: str, payload: type[E]) -> Topic[E]:
        return Topic(f"orders-{self.id}.{name}", payload, retention=timedelta(days=1))
