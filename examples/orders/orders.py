"""The orders service: separates orders from cancellations."""

from __future__ import annotations

from anymq import App, Delivery, Idempotency, Message

from .events import (
    InvoiceReceived,
    OrderCancelled,
    OrderPlaced,
    PaymentDue,
    event_id,
    total,
)
from .run import CONCURRENCY, DUE, LEASE, RETRY, Run
from .serve import serve
from .state import State


def orders(app: App, run: Run) -> State:
    """Add the service to `app` and return its state.

    Its only state are the invoices already handled, which `Idempotency` keeps.
    """
    state = State(run.file("orders"))

    def duplicate(delivery: Delivery) -> None:
        state.count_duplicate(delivery.message.id)

    @app.subscriber(
        run.received,
        group="orders",
        concurrency=CONCURRENCY,
        ack_deadline=LEASE,
        retry=RETRY,
        idempotency=Idempotency(run.seen("orders"), lease=LEASE, on_duplicate=duplicate),
    )
    async def place(received: InvoiceReceived, message: Message) -> None:
        number, country, lines = received.invoice, received.country, received.lines
        if number.startswith("C"):
            cancelled = OrderCancelled(invoice=number, country=country, refund=total(lines))
            await app.publish(
                run.cancelled, cancelled, key=number, id=event_id(message, OrderCancelled)
            )
        else:
            placed = OrderPlaced(invoice=number, country=country, lines=lines)
            await app.publish(run.placed, placed, key=number, id=event_id(message, OrderPlaced))
            due, id = PaymentDue(invoice=number), event_id(message, PaymentDue)
            await app.publish(run.due, due, key=number, id=id, delay=DUE)

    return state


if __name__ == "__main__":
    serve(orders)
