"""An ordinary application. ANYMQ_URL chooses the broker, and changes nothing else."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel

from anymq import App, Deadline, Delivery, Idempotency, Reject, Retry, Topic


class OrderPlaced(BaseModel):
    number: int


class OrderPaid(BaseModel):
    number: int
    attempt: int


RUN = sys.argv[1]
PLACED = Topic(f"{RUN}.placed", OrderPlaced)
PAID = Topic(f"{RUN}.paid", OrderPaid)

started = asyncio.Event()


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[None]:
    started.set()
    yield


app = App(lifespan=lifespan)
paid: dict[int, int] = {}
dead: dict[int, str] = {}


def done() -> None:
    if len(paid) + len(dead) == 20:
        app.stop()


@app.subscriber(
    PLACED,
    group="payment",
    concurrency=4,
    retry=Retry(attempts=3, initial=0.4, jitter=False),
    idempotency=Idempotency(f"sqlite:///{os.environ['STATE']}/seen.db"),
    deadline=Deadline(10),
)
async def pay(order: OrderPlaced, delivery: Delivery) -> None:
    if order.number % 7 == 0:
        raise Reject(f"order {order.number} is refused")
    if order.number % 3 == 0 and delivery.attempt == 1:
        raise ConnectionError("the bank does not answer")
    if order.number % 10 == 5:
        raise ValueError("never")
    event = OrderPaid(number=order.number, attempt=delivery.attempt)
    await app.publish(PAID, event, key=str(order.number))


@app.subscriber(PAID, group="ledger")
async def book(event: OrderPaid, delivery: Delivery) -> None:
    assert delivery.message.correlation_id == f"{RUN}-{event.number}"
    assert delivery.message.causation_id == f"{RUN}-{event.number}"
    paid[event.number] = event.attempt
    done()


@app.subscriber(f"{RUN}.placed.payment.dlq", group="ledger")
async def bury(order: OrderPlaced, delivery: Delivery) -> None:
    headers = delivery.message.headers
    dead[order.number] = f"{headers['anymq-dlq-attempts']}: {headers['anymq-dlq-reason']}"
    done()


async def main() -> None:
    serving = asyncio.create_task(app.serve())
    await started.wait()
    for number in range(20):
        await app.publish(PLACED, OrderPlaced(number=number), id=f"{RUN}-{number}", timeout=30)
    async with asyncio.timeout(300):
        await serving
    print(json.dumps({"paid": paid, "dead": dead}, sort_keys=True))


if __name__ == "__main__":
    asyncio.run(main())
