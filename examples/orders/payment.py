"""payment: captures the money of every order that is fit to be paid."""

from __future__ import annotations

from anymq import App, Delivery, Idempotency, Message, Reject

from .events import OrderPlaced, PaymentCaptured, event_id, total
from .gateway import SCHEMA, Gateway
from .run import CONCURRENCY, LEASE, RETRY, Run
from .serve import serve
from .state import State


def payment(app: App, run: Run) -> State:
    """Add the service to `app`, and return its state.

    An order that can never be paid is rejected, to the dead letters. A decline is an error like
    any other: the handler does not deal with it, `Retry` does.
    """
    state = State(run.file("payment"), SCHEMA)
    gateway = Gateway(state)

    def duplicate(delivery: Delivery) -> None:
        state.count_duplicate(delivery.message.id)

    @app.subscriber(
        run.placed,
        group="payment",
        concurrency=CONCURRENCY,
        ack_deadline=LEASE,
        retry=RETRY,
        idempotency=Idempotency(run.seen("payment"), lease=LEASE, on_duplicate=duplicate),
    )
    async def capture(order: OrderPlaced, message: Message) -> None:
        check(order)
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

    return state


def check(order: OrderPlaced) -> None:
    """Raise `Reject` if the order cannot be paid."""
    for line in order.lines:
        if line.quantity <= 0:
            raise Reject(f"{line.stock_code}: the quantity is {line.quantity}")
        if line.price <= 0:
            raise Reject(f"{line.stock_code}: the price is {line.price}")
        if not line.customer:
            raise Reject(f"{line.stock_code}: there is no customer")


if __name__ == "__main__":
    serve(payment)
