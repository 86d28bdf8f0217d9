"""Typing of programs on anymq. Each `ignore` marks an error that type checkers must report."""

from typing import assert_type

from pydantic import BaseModel

from anymq import (
    App,
    Broker,
    Delivery,
    Message,
    Receipt,
    Topic,
    connect,
    correlation,
    current_delivery,
)


class Placed(BaseModel):
    number: int


class Cancelled(BaseModel):
    number: int


ORDERS = Topic("orders", Placed)
BOTH = Topic[Placed | Cancelled]("orders", Placed | Cancelled)
PLAIN = Topic("plain")
app = App()


async def publishing(broker: Broker) -> None:
    assert_type(await broker.publish(ORDERS, Placed(number=1)), Receipt)
    await broker.publish("orders", {"any": "thing"}, key="k")
    await broker.publish(BOTH, Cancelled(number=1))
    await broker.publish(PLAIN, b"anything")
    await app.publish(ORDERS, Placed(number=1), key="k", delay=5, correlation_id="c")
    results = await broker.publish_many(ORDERS, [Placed(number=1)], key=lambda o: str(o.number))
    assert_type(results, list[Receipt | Exception])
    await broker.publish(ORDERS, Cancelled(number=1))  # type: ignore[misc]  # pyright: ignore
    await broker.publish(BOTH, "text")  # type: ignore[misc]  # pyright: ignore
    await app.publish(ORDERS, "text")  # type: ignore[misc]  # pyright: ignore
    await app.publish("orders", {}, key=5)  # type: ignore[arg-type]  # pyright: ignore
    await app.publish("orders", {}, kye="k")  # type: ignore[call-arg]  # pyright: ignore


async def connecting() -> None:
    assert_type(await connect(), Broker)
    async with connect("memory://") as broker:
        assert_type(broker, Broker)


async def consuming(broker: Broker) -> None:
    async with broker.subscribe(ORDERS, group="g") as deliveries:
        async for delivery in deliveries:
            assert_type(delivery, Delivery)
            assert_type(delivery.message, Message)
            assert_type(delivery.attempt, int)
            assert_type(delivery.message.decode(Placed), Placed)
            assert_type(delivery.decode(dict[str, int]), dict[str, int])
            assert_type(current_delivery(), Delivery | None)
    broker.subscribe(ORDERS)  # type: ignore[call-arg]  # pyright: ignore


async def correlating(broker: Broker) -> None:
    with correlation("c") as id:
        assert_type(id, str)


@app.subscriber(ORDERS, group="g")
async def handle(order: Placed, delivery: Delivery) -> None: ...


@app.subscriber(ORDERS, group="g")  # type: ignore[type-var]  # pyright: ignore
def not_async(order: Placed) -> None: ...
