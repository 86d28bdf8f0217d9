"""Typing of programs on anymq. Each `ignore` marks an error that type checkers must report."""

from typing import assert_type

from pydantic import BaseModel

from anymq import (
    App,
    Broker,
    Delivery,
    Message,
    Receipt,
    Retry,
    Router,
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


@app.subscriber(ORDERS, group="no-result")  # type: ignore[type-var]  # pyright: ignore
async def returns_for_nobody(order: Placed) -> Cancelled:
    return Cancelled(number=1)


@app.subscriber(ORDERS, group="g")  # type: ignore[type-var]  # pyright: ignore
def not_async(order: Placed) -> None: ...


# What a handler returns.

router = Router(retry=Retry(attempts=3), concurrency=2)
app.include(router, prefix="shop.", middleware=[])
Router(attempts=3)  # type: ignore[call-arg]  # pyright: ignore
app.include(router, tag="x")  # type: ignore[call-arg]  # pyright: ignore


@router.subscriber("requests", group="g", to=ORDERS, retry=None)
async def always(request: str, delivery: Delivery) -> Placed:
    return Placed(number=len(request))


@app.subscriber("requests", group="sometimes", to=ORDERS)
async def sometimes(request: str) -> Placed | None:
    return Placed(number=1) if request else None


@router.subscriber("requests", group="either", to=BOTH)
async def either(request: str, limit: int = 3) -> Placed:
    return Placed(number=limit)


@app.subscriber("requests", group="named", to="anything")
async def to_a_name(request: str) -> dict[str, int]:
    return {}


@app.subscriber("requests", group="answers", reply=True)
async def answers(request: str) -> list[int]:
    return []


@app.subscriber("requests", group="wrong", to=ORDERS)  # type: ignore[arg-type]  # pyright: ignore
async def wrong_result(request: str) -> Cancelled:
    return Cancelled(number=1)


@app.subscriber("requests", group="wrong", to=BOTH)  # type: ignore[arg-type]  # pyright: ignore
async def wrong_for_both(request: str) -> str | None:
    return None


@app.subscriber("requests", group="wrong", to=ORDERS)  # type: ignore[arg-type]  # pyright: ignore
def neither_async(request: str) -> Placed:
    return Placed(number=1)


async def decorated_handlers_keep_their_types(delivery: Delivery) -> None:
    assert_type(await handle(Placed(number=1), delivery), None)
    assert_type(await handle(order=Placed(number=1), delivery=delivery), None)
    assert_type(await always("x", delivery), Placed)
    assert_type(await always(request="x", delivery=delivery), Placed)
    assert_type(await sometimes("x"), Placed | None)
    await either("x", limit=5)
    assert_type(await to_a_name("x"), dict[str, int])
    assert_type(await answers(request="x"), list[int])
    await always("x")  # type: ignore[call-arg]  # pyright: ignore
    await handle("x", delivery)  # type: ignore[arg-type]  # pyright: ignore
    await either("x", limit="5")  # type: ignore[arg-type]  # pyright: ignore


async def publishing_many(broker: Broker) -> None:
    await broker.publish_many(ORDERS, [Cancelled(number=1)])  # type: ignore[misc]  # pyright: ignore
    await broker.publish_many(ORDERS, ["x"], key="k")  # type: ignore[misc]  # pyright: ignore
