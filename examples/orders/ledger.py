"""The ledger service: applies every event once to a queryable view of all orders."""

from __future__ import annotations

from anymq import App, Message

from .events import (
    Event,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    StockReserved,
)
from .run import CONCURRENCY, LEASE, RETRY, Run
from .serve import serve
from .state import State

# Events of one invoice arrive in any order, and each fills its columns of the row. `events` is the
# graph of the flow: `cause` leads from each event back to the invoice.
SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
  invoice TEXT PRIMARY KEY,
  placed INTEGER DEFAULT 0,
  cancelled INTEGER DEFAULT 0,
  captured INTEGER DEFAULT 0,
  reserved INTEGER DEFAULT 0,
  shipped INTEGER DEFAULT 0,
  rejected INTEGER DEFAULT 0,
  expired INTEGER DEFAULT 0,
  reason TEXT,
  country TEXT,
  amount TEXT,
  attempts INTEGER DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  id TEXT PRIMARY KEY, type TEXT, invoice TEXT, cause TEXT, correlation TEXT
) WITHOUT ROWID;
"""

AnyEvent = (
    OrderPlaced | OrderExpired | OrderCancelled | PaymentCaptured | StockReserved | OrderShipped
)


def ledger(app: App, run: Run) -> State:
    """Add the service to `app` and return its state.

    One handler receives the six types of event, another the dead letters.
    """
    state = State(run.file("ledger"), SCHEMA)

    async def record(event: AnyEvent, message: Message) -> None:
        apply(message.id, event, message, columns(event))

    for topic in (run.placed, run.cancelled, run.captured, run.reserved, run.shipped):
        app.subscriber(
            topic, group="ledger", concurrency=CONCURRENCY, ack_deadline=LEASE, retry=RETRY
        )(record)

    @app.subscriber(
        run.rejected, group="ledger", concurrency=CONCURRENCY, ack_deadline=LEASE, retry=RETRY
    )
    async def record_rejected(order: OrderPlaced, message: Message) -> None:
        # A dead letter is the rejected message itself, with its original id.
        reason = message.headers["anymq-dlq-reason"]
        apply(f"{message.id}/rejected", order, message, {"rejected": 1, "reason": reason})

    def apply(id: str, event: Event, message: Message, values: dict[str, str | int]) -> None:
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        with state.transaction() as db:
            if not state.first_time(id):
                return
            db.execute(
                f"INSERT INTO orders (invoice, {names}) VALUES (?, {marks})"
                f" ON CONFLICT DO UPDATE SET {updates}",
                (event.invoice, *values.values()),
            )
            cause, correlation = message.causation_id, message.correlation_id
            db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (id, message.type, event.invoice, cause, correlation),
            )

    return state


def columns(event: AnyEvent) -> dict[str, str | int]:
    """Return the values that `event` sets, by column."""
    match event:
        case OrderPlaced():
            return {"placed": 1}
        case OrderExpired():
            return {"expired": 1}
        case OrderCancelled(country=country, refund=refund):
            return {"cancelled": 1, "country": country, "amount": str(refund)}
        case PaymentCaptured(country=country, amount=amount, attempts=attempts):
            money: dict[str, str | int] = {"country": country, "amount": str(amount)}
            return money | {"captured": 1, "attempts": attempts}
        case StockReserved():
            return {"reserved": 1}
        case OrderShipped():
            return {"shipped": 1}


if __name__ == "__main__":
    serve(ledger)
