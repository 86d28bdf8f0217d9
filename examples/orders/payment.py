"""The payment service: captures payable orders, and lets unpayable ones expire."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import TypeAdapter

from anymq import App, Delivery, Idempotency, Message, Reject, RetryAfter

from .events import (
    Line,
    OrderExpired,
    OrderPlaced,
    PaymentCaptured,
    PaymentDue,
    event_id,
    total,
)
from .gateway import SCHEMA as CHARGES
from .gateway import Gateway
from .run import CONCURRENCY, DUE, LEASE, RETRY, Run
from .serve import serve
from .state import State

# The decision on each order; `reason` is set if the order can never be paid.
SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (invoice TEXT PRIMARY KEY, reason TEXT, lines TEXT)
WITHOUT ROWID;
"""

NO_CUSTOMER = "there is no customer"
LINES = TypeAdapter(tuple[Line, ...])


def payment(app: App, run: Run) -> State:
    """Add the service to `app` and return its state.

    An order that cannot be paid is rejected and thereby dead-lettered. A declined charge raises,
    and `Retry` repeats the attempt. When the payment is due, an order that can never be paid
    expires; an order that only lacks its customer waits to be edited and redriven.
    """
    state = State(run.file("payment"), CHARGES + SCHEMA)
    gateway = Gateway(state)

    def duplicate(delivery: Delivery) -> None:
        state.count_duplicate(delivery.message.id)

    def decide(order: OrderPlaced, reason: str | None = None) -> None:
        lines = LINES.dump_json(order.lines).decode() if reason else None
        with state.transaction() as db:
            insert = "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)"
            db.execute(insert, (order.invoice, reason, lines))

    @app.subscriber(
        run.placed,
        group="payment",
        concurrency=CONCURRENCY,
        ack_deadline=LEASE,
        retry=RETRY,
        idempotency=Idempotency(run.seen("payment"), lease=LEASE, on_duplicate=duplicate),
    )
    async def capture(order: OrderPlaced | OrderExpired, message: Message) -> None:
        if isinstance(order, OrderExpired):
            return
        if reason := unpayable(order.lines):
            decide(order, reason)
            raise Reject(reason)
        if not all(line.customer for line in order.lines):
            decide(order)
            raise Reject(NO_CUSTOMER)
        attempts = gateway.charge(order.invoice)
        captured = PaymentCaptured(
            invoice=order.invoice,
            country=order.country,
            amount=total(order.lines),
            attempts=attempts,
        )
        await app.publish(
            run.captured, captured, key=order.invoice, id=event_id(message, PaymentCaptured)
        )
        decide(order)

    @app.subscriber(run.due, group="payment", ack_deadline=LEASE, concurrency=CONCURRENCY)
    async def due(event: PaymentDue, message: Message) -> None:
        query = "SELECT reason, lines FROM verdicts WHERE invoice = ?"
        verdict = state.db.execute(query, (event.invoice,)).fetchone()
        if verdict is None:
            raise RetryAfter(DUE.total_seconds(), "payment is not decided yet", counted=False)
        reason, lines = verdict
        if reason is not None:
            expired = OrderExpired(
                invoice=event.invoice, reason=reason, lines=LINES.validate_json(lines)
            )
            id = event_id(message, OrderExpired)
            await app.publish(run.placed, expired, key=event.invoice, id=id)

    return state


def unpayable(lines: Iterable[Line]) -> str | None:
    """Return why an order with these lines can never be paid, or None."""
    for line in lines:
        if line.quantity <= 0:
            return f"{line.stock_code}: the quantity is {line.quantity}"
        if line.price <= 0:
            return f"{line.stock_code}: the price is {line.price}"
    return None


if __name__ == "__main__":
    serve(payment)
