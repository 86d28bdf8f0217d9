"""The stock service: reserves goods, and restocks before they run out."""

from __future__ import annotations

import sqlite3

from anymq import App, Message

from .events import Line, OrderExpired, OrderPlaced, StockReserved, event_id
from .run import CONCURRENCY, LEASE, RETRY, Run
from .serve import serve
from .state import State

# The shelf of a stock code is filled on first use, and again before it would run out.
SCHEMA = """
CREATE TABLE IF NOT EXISTS shelves (
  stock_code TEXT PRIMARY KEY,
  delivered INTEGER NOT NULL,
  reserved INTEGER NOT NULL CHECK (reserved BETWEEN 0 AND delivered)
) WITHOUT ROWID;
"""

REFILL = 1000


def stock(app: App, run: Run) -> State:
    """Add the service to `app` and return its state.

    The subscription is `ordered`, with the invoice as the key, so an order is placed before it
    expires. The handler changes the state, publishes its event, and then acknowledges. After a
    crash in between, the state is not changed again, and the event has the same id.
    """
    state = State(run.file("stock"), SCHEMA)

    @app.subscriber(
        run.placed,
        group="stock",
        ordered=True,
        concurrency=CONCURRENCY,
        ack_deadline=LEASE,
        retry=RETRY,
    )
    async def reserve(order: OrderPlaced | OrderExpired, message: Message) -> None:
        with state.transaction() as db:
            if state.first_time(message.id):
                for line in order.lines:
                    if isinstance(order, OrderPlaced):
                        take(db, line)
                    else:
                        give_back(db, line)
        if isinstance(order, OrderExpired):
            return
        reserved = StockReserved(invoice=order.invoice)
        await app.publish(
            run.reserved, reserved, key=order.invoice, id=event_id(message, StockReserved)
        )

    return state


def take(db: sqlite3.Connection, line: Line) -> None:
    """Reserve the goods of `line`."""
    wanted = max(line.quantity, 0)
    upsert = """
    INSERT INTO shelves VALUES (:code, :wanted + :refill, :wanted)
    ON CONFLICT DO UPDATE SET
      reserved = reserved + :wanted,
      delivered = max(delivered, reserved + :wanted + :refill)
    """
    db.execute(upsert, {"code": line.stock_code, "wanted": wanted, "refill": REFILL})


def give_back(db: sqlite3.Connection, line: Line) -> None:
    """Release the goods of `line`; a constraint prevents a negative reservation."""
    update = "UPDATE shelves SET reserved = reserved - ? WHERE stock_code = ?"
    db.execute(update, (max(line.quantity, 0), line.stock_code))


if __name__ == "__main__":
    serve(stock)
