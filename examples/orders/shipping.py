"""The shipping service: ships paid and reserved orders; the two events arrive in any order."""

from __future__ import annotations

from anymq import App, Message

from .events import OrderShipped, PaymentCaptured, StockReserved, event_id
from .run import CONCURRENCY, LEASE, RETRY, Run
from .serve import serve
from .state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS parcels (
  invoice TEXT PRIMARY KEY, paid INTEGER DEFAULT 0, reserved INTEGER DEFAULT 0
) WITHOUT ROWID;
"""


def shipping(app: App, run: Run) -> State:
    """Add the service to `app` and return its state, which joins the events of two handlers."""
    state = State(run.file("shipping"), SCHEMA)

    @app.subscriber(
        run.captured, group="shipping", concurrency=CONCURRENCY, ack_deadline=LEASE, retry=RETRY
    )
    async def paid(event: PaymentCaptured, message: Message) -> None:
        await ship_if_ready(event.invoice, "paid", message)

    @app.subscriber(
        run.reserved, group="shipping", concurrency=CONCURRENCY, ack_deadline=LEASE, retry=RETRY
    )
    async def reserved(event: StockReserved, message: Message) -> None:
        await ship_if_ready(event.invoice, "reserved", message)

    async def ship_if_ready(invoice: str, step: str, message: Message) -> None:
        upsert = f"""
        INSERT INTO parcels (invoice, {step}) VALUES (?, 1)
        ON CONFLICT DO UPDATE SET {step} = 1 RETURNING paid AND reserved
        """
        with state.transaction() as db:
            state.first_time(
                message.id
            )  # a duplicate is only counted, as it does not change the row
            (ready,) = db.execute(upsert, (invoice,)).fetchone()
        if ready:
            shipped = OrderShipped(invoice=invoice)
            await app.publish(run.shipped, shipped, key=invoice, id=event_id(message, OrderShipped))

    return state


if __name__ == "__main__":
    serve(shipping)
