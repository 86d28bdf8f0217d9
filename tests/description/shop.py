"""An app with every kind of handler and payload."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel
from typing_extensions import TypedDict

import anymq
from anymq import Batch, Topic


class Line(BaseModel):
    """One line of an order."""

    code: str
    quantity: int = 1
    bundle: list[Line] = []


class OrderPlaced(BaseModel):
    """An order was placed."""

    number: str
    total: Decimal
    lines: list[Line]
    window: tuple[datetime, datetime] | None = None


@dataclass
class OrderCancelled:
    """An order was cancelled."""

    __event_type__ = "shop/order.cancelled"

    number: str
    reason: Literal["customer", "stock"] = "customer"


class Note(TypedDict):
    """A remark."""

    text: str


ORDERS = Topic[OrderPlaced | OrderCancelled]("orders", OrderPlaced | OrderCancelled, partitions=8)
PAID = Topic[dict]("payments.captured", dict)  # type: ignore[type-arg]


def shop(url: str | None = None) -> anymq.App:
    """Return the app."""
    app = anymq.App(url, name="shop", version="1.4", publishes=[PAID, "audit", ORDERS])

    @app.subscriber(ORDERS, group="billing", ordered=True)
    async def bill(order: OrderPlaced) -> None:
        """Bill an order."""

    @app.subscriber(ORDERS, group="billing", ordered=True)
    async def refund(order: OrderCancelled) -> None:
        """Refund an order."""

    @app.subscriber("notes", group="notes", batch=Batch(size=10, wait=1.0))
    async def keep(notes: list[Note]) -> None: ...

    @app.subscriber("images", group=None, dead_letter=None)
    async def show(image: bytes) -> None: ...

    @app.subscriber("texts", group="texts")
    async def read(text: str, delivery: anymq.Delivery) -> None: ...

    @app.subscriber("orders.billing.dlq", group="mend")
    async def mend(delivery: anymq.Delivery) -> None: ...

    return app


app = shop()
