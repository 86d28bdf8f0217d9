"""One run of the system: its topics, its settings, and the state files of its services."""

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
"""Messages handled concurrently per handler."""

LEASE = 5.0
"""Seconds after which the messages of a crashed service are redelivered."""

DUE = timedelta(seconds=1)
"""Time from order to due payment, which in a real shop is days."""

PARTITIONS = 4
"""Largest number of members that share an ordered group."""

RETRY = Retry(attempts=10, cap=60)
"""More attempts than the default, because each crash counts as one."""


class Run:
    """A run whose topics contain its `id`, so that messages of earlier runs are not seen."""

    def __init__(self, url: str, id: str, folder: Path) -> None:
        self.url = url
        self.id = id
        self.folder = folder
        self.received = self._topic("received", InvoiceReceived)
        # Begin and end of an order share a topic, because stock needs them in this order.
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
        # The dead-letter topic of payment, created by anymq; it is an ordinary topic.
        self.rejected = Topic(f"{self.placed.name}.payment.dlq", OrderPlaced)

    def file(self, service: str) -> Path:
        """Return the state file of `service`."""
        return self.folder / f"{service}.db"

    def seen(self, service: str) -> str:
        """Return the URL of the idempotency store of `service`."""
        return f"sqlite:///{quote(str(self.folder))}/{service}-seen.db?synchronous=NORMAL"

    def _topic(self, name: str, payload: type[E]) -> Topic[E]:
        return Topic(f"orders-{self.id}.{name}", payload, retention=timedelta(days=1))
