"""A small application, as a user of anymq writes it."""

from pydantic import BaseModel

import anymq


class Order(BaseModel):
    number: str
    total: float


ORDERS = anymq.Topic("orders", Order)
BILLS = anymq.Topic("bills", Order)
REMINDERS = anymq.Topic("reminders", Order)

app = anymq.App()


@app.subscriber(ORDERS, group="billing", retry=anymq.Retry(attempts=3, initial=1, jitter=False))
async def bill(order: Order) -> None:
    if order.total < 0:
        raise ValueError("a negative total")
    await app.publish(BILLS, order, key=order.number)
    await app.publish(REMINDERS, order, key=order.number, delay=2)


@app.subscriber(REMINDERS, group="mail")
async def remind(order: Order) -> None:
    """Send a letter."""
