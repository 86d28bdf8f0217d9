"""What handlers return: published with `to`, replied with `reply`, and refused otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

import anymq
from anymq import (
    App,
    Batch,
    ConfigurationError,
    Delivery,
    Idempotency,
    Message,
    MessageTooLarge,
    Publish,
    Receipt,
    RequestTimeout,
    Retry,
    Router,
    Topic,
)
from anymq.testing import TestBroker


class Order(BaseModel):
    number: int


class Invoice(BaseModel):
    number: int
    cents: int = 100


class Other(BaseModel):
    number: int


class Line(TypedDict):
    number: int


INVOICES = Topic("invoices", Invoice)


async def test_what_a_handler_returns_is_published_with_its_key_and_its_flow() -> None:
    app = App(name="billing")

    @app.subscriber("orders", group="g", to=INVOICES)
    async def bill(order: Order, delivery: Delivery) -> Invoice | None:
        return Invoice(number=order.number) if order.number else None

    assert (app.subscribers[0].to, app.subscribers[0].reply) == (INVOICES, False)
    async with TestBroker(app) as broker:
        receipt = await broker.publish("orders", Order(number=1), key="k", correlation_id="flow")
        await broker.publish("orders", Order(number=2))
        await broker.publish("orders", Order(number=0), key="nothing to bill")
        await broker.drain()
        first, second = broker.published(INVOICES)
        assert first.decode(Invoice) == Invoice(number=1)
        assert (first.key, first.correlation_id, first.causation_id) == ("k", "flow", receipt.id)
        assert (first.type, first.source) == ("Invoice", "billing")
        assert second.key is None
        assert first.id != second.id


async def test_a_list_is_one_payload() -> None:
    app = App()

    @app.subscriber("orders", group="g", to="lines")
    async def split(order: Order) -> list[int]:
        return [order.number, order.number + 1]

    async with TestBroker(app) as broker:
        await broker.publish("orders", Order(number=1))
        await broker.drain()
        (lines,) = broker.published("lines")
        assert lines.body == b"[1,2]"


async def test_a_publish_that_fails_is_a_failed_attempt_and_repeats_the_id() -> None:
    down = [True]
    ids: list[str] = []

    def break_down(publish: Publish) -> Publish:
        async def breaking(message: Message) -> Receipt:
            if message.topic == "invoices":
                ids.append(message.id)
                if len(ids) == 2:
                    await publish(message)  # It is stored, but its confirmation is lost.
                if down[0]:
                    raise anymq.PublishTimeout("the broker did not confirm")
            return await publish(message)

        return breaking

    app = App(publish_middleware=[break_down])
    attempts: list[int] = []
    used: list[str] = []

    @app.subscriber(
        "orders", group="g", to=INVOICES, retry=Retry(attempts=9, initial=600, cap=3600)
    )
    async def bill(order: Order, delivery: Delivery) -> Invoice:
        attempts.append(delivery.attempt)
        return Invoice(number=order.number)

    @app.subscriber(INVOICES, group="use", idempotency=Idempotency("memory://"))
    async def use(delivery: Delivery) -> None:
        used.append(delivery.message.id)

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("orders", Order(number=1), key="k")
        await broker.drain()
        info = await app.broker.admin.describe("orders", "g")
        assert (attempts, info.lag) == ([1], 1)
        await broker.advance(3600)
        down[0] = False
        await broker.advance(4 * 3600)
        info = await app.broker.admin.describe("orders", "g")
        assert info.lag == 0
        assert broker.dead_letters("orders", group="g") == []
    assert len(attempts) > 2
    assert len(set(ids)) == 1
    assert used == ids[:1]


async def test_a_payload_that_cannot_be_published_ends_in_the_dead_letters() -> None:
    app = App()

    @app.subscriber("orders", group="g", to=INVOICES, retry=Retry(attempts=2, initial=1))
    async def bill(order: Order) -> Any:
        return Other(number=order.number)

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("orders", Order(number=1))
        await broker.advance(60)
        (letter,) = broker.dead_letters("orders", group="g")
        assert "topic 'invoices' carries Invoice, not Other" in str(letter.reason)
        assert broker.published(INVOICES) == []


async def test_a_large_result_is_refused_before_it_is_sent() -> None:
    app = App()
    errors: list[Exception] = []

    def note(handler: anymq.Handler) -> anymq.Handler:
        async def noting(delivery: Delivery) -> None:
            try:
                await handler(delivery)
            except Exception as error:
                errors.append(error)
                raise

        return noting

    @app.subscriber("orders", group="g", to="out", retry=None, middleware=[note])
    async def blow_up(order: Order) -> bytes:
        return b"x" * 2_000_000

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("orders", Order(number=1))
        await broker.drain()
        assert len(broker.dead_letters("orders", group="g")) == 1
    assert isinstance(errors[0], MessageTooLarge)


async def test_ids_follow_from_the_message_the_group_and_the_topic() -> None:
    app = App()

    async def echo(order: Order) -> Order:
        return order

    for group, to in (("a", "out"), ("b", "out"), ("c", "other"), ("d", "out")):
        app.subscriber("orders", group=group, to=to)(echo)
    app.subscriber("more", group="a", to="out")(echo)

    async def run() -> list[str]:
        async with TestBroker(app) as broker:
            for topic in ("orders", "more"):
                await broker.publish(topic, Order(number=1), id="one")
            await broker.publish("orders", Order(number=1), id="two")
            await broker.drain()
            found = [*broker.published("out"), *broker.published("other")]
            return sorted(message.id for message in found)

    ids = await run()
    assert len(set(ids)) == 9
    assert await run() == ids, "another process publishes the same ids"
    assert all(id[14] == "8" for id in ids), "they are UUIDv8"


async def test_each_broadcast_reader_publishes_its_own() -> None:
    app = App()

    async def one(order: Order) -> Order:
        return order

    async def other(order: Order) -> Order:
        return order

    app.subscriber("orders", group=None, to="out")(one)
    app.subscriber("orders", group=None, to="out")(other)
    async with TestBroker(app) as broker:
        await broker.publish("orders", Order(number=1))
        await broker.drain()
        assert len({message.id for message in broker.published("out")}) == 2


async def test_handlers_that_share_a_group_by_type_have_topics_of_their_own() -> None:
    app, router = App(), Router()

    @app.subscriber("events", group="g", to="invoices")
    async def bill(order: Order) -> Invoice:
        return Invoice(number=order.number)

    @router.subscriber("events", group="g", to="notes")
    async def note(invoice: Invoice, delivery: Delivery) -> str:
        return f"note {invoice.number}"

    @router.subscriber("events", group="g")
    async def neither(other: Other) -> None: ...

    app.include(router)
    async with TestBroker(app) as broker:
        for event in (Order(number=1), Invoice(number=2), Other(number=3)):
            await broker.publish("events", event)
        await broker.drain()
        assert [message.decode(Invoice).number for message in broker.published("invoices")] == [1]
        assert [message.body for message in broker.published("notes")] == [b"note 2"]
        assert broker.dead_letters("events", group="g") == []


async def test_an_unknown_type_is_ignored_with_a_result_as_well() -> None:
    app = App()

    @app.subscriber("events", group="g", to="out", unknown="ignore")
    async def bill(event: Order | Invoice) -> str:
        return "known"

    async with TestBroker(app) as broker:
        for event in (Order(number=1), Other(number=3)):
            await broker.publish("events", event)
        await broker.drain()
        assert len(broker.published("out")) == 1
        assert broker.dead_letters("events", group="g") == []


async def test_in_an_ordered_group_results_keep_the_order_of_their_key() -> None:
    app = App()

    @app.subscriber("orders", group="g", to="out", ordered=True, concurrency=8)
    async def echo(order: Order) -> int:
        await asyncio.sleep(0.001 * (order.number % 3))
        return order.number

    async with TestBroker(app) as broker:
        for number in range(20):
            await broker.publish("orders", Order(number=number), key="k")
        await broker.drain()
        assert [message.decode(int) for message in broker.published("out")] == list(range(20))


async def test_a_duplicate_publishes_nothing_with_idempotency() -> None:
    app = App()

    @app.subscriber("orders", group="g", to="out", idempotency=Idempotency("memory://"))
    async def echo(order: Order) -> int:
        return order.number

    async with TestBroker(app) as broker:
        for _ in range(3):
            await broker.publish("orders", Order(number=1), id="one")
        await broker.drain()
        assert len(broker.published("out")) == 1


async def test_a_request_is_answered_and_any_other_message_is_handled() -> None:
    app = App()
    handled: list[int] = []

    @app.subscriber("orders", group="g", reply=True)
    async def price(order: Order, delivery: Delivery) -> Invoice | None:
        handled.append(order.number)
        assert delivery.is_request == (order.number != 2)
        return Invoice(number=order.number) if order.number else None

    async with TestBroker(app) as broker:
        ask = app.broker.request
        assert await ask("orders", Order(number=1), response=Invoice) == Invoice(number=1)
        await broker.publish("orders", Order(number=2))
        await broker.drain()
        assert (await ask("orders", Order(number=0), timeout=30)).body == b"null"
        assert broker.dead_letters("orders", group="g") == []
    assert handled == [1, 2, 0]


async def test_a_handler_may_publish_and_reply() -> None:
    app = App()

    @app.subscriber("orders", group="g", to=INVOICES, reply=True)
    async def bill(order: Order) -> Invoice:
        return Invoice(number=order.number)

    async with TestBroker(app) as broker:
        reply = await app.broker.request("orders", Order(number=1), response=Invoice)
        assert [message.decode(Invoice) for message in broker.published(INVOICES)] == [reply]


async def test_without_reply_a_returned_value_answers_nothing() -> None:
    app = App()

    @app.subscriber("orders", group="g", to=INVOICES)
    async def bill(order: Order) -> Invoice:
        return Invoice(number=order.number)

    async with TestBroker(app):
        with pytest.raises(RequestTimeout):
            await app.broker.request("orders", Order(number=1), timeout=0.5)


async def test_handlers_can_be_called_as_they_are_written() -> None:
    app = App()

    @app.subscriber("orders", group="g", to=INVOICES)
    async def bill(order: Order) -> Invoice:
        return Invoice(number=order.number)

    assert await bill(order=Order(number=1)) == Invoice(number=1)


def test_handlers_whose_result_suits_no_use_are_refused_at_once() -> None:
    async def invoice(order: Order) -> Invoice: ...  # type: ignore[empty-body]  # pyright: ignore
    async def nothing(order: Order) -> None: ...
    async def other(order: Order) -> Other | None: ...
    async def several(orders: list[Order]) -> list[Invoice]: ...  # type: ignore[empty-body]  # pyright: ignore

    typed: Topic[Any] = INVOICES
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (invoice, {}, "returns a value, which no caller would get.* to=TOPIC .* reply=True"),
        (nothing, {"to": typed}, "returns nothing that could be published to invoices"),
        (other, {"to": typed}, "returns Other | None, but topic 'invoices' carries Invoice"),
        (several, {"to": "out", "batch": Batch()}, "takes batches"),
        (several, {"reply": True, "batch": Batch()}, "takes batches"),
    ]
    for registry in (App(), Router()):
        for function, settings, reason in wrong:
            with pytest.raises(ConfigurationError, match=reason.replace("|", r"\\|")):
                registry.subscriber("orders", group="g", **settings)(function)


def test_results_that_only_running_shows_are_accepted() -> None:
    async def untyped(order: Order): ...  # type: ignore[no-untyped-def]
    async def anything(order: Order) -> Any: ...
    async def line(order: Order) -> Line: ...  # type: ignore[empty-body]  # pyright: ignore
    async def maybe(order: Order) -> Invoice | None: ...
    async def nothing(order: Order) -> None: ...

    app = App()
    cases: list[tuple[Any, dict[str, Any]]] = [
        (untyped, {"to": INVOICES}),
        (anything, {"to": INVOICES}),
        (line, {"to": Topic("lines", Line)}),
        (maybe, {"to": INVOICES}),
        (nothing, {"reply": True}),
    ]
    for number, (function, settings) in enumerate(cases):
        app.subscriber("orders", group=f"g{number}", **settings)(function)
    assert len(app.subscribers) == len(cases)


@dataclass
class Counter:
    """A handler that is an object, and has no hash."""

    count: int = 0

    async def __call__(self, order: Order) -> dict[str, int]:
        self.count += 1
        return {"count": self.count}

    async def note(self, order: Order, delivery: Delivery) -> str:
        return f"{delivery.group} {self.count}"


async def test_objects_and_their_methods_are_handlers() -> None:
    app, counter = App(), Counter()
    app.subscriber("orders", group="objects", to="counts")(counter)
    app.subscriber("orders", group="others", to="counts")(Counter(5))
    app.subscriber("orders", group="methods", to="notes")(Counter().note)
    app.subscriber("orders", group="others-methods", to="notes")(counter.note)
    for twice, group in ((counter, "objects"), (counter.note, "others-methods")):
        with pytest.raises(ConfigurationError, match="is registered twice"):
            app.subscriber("orders", group=group, to="out")(twice)
    async with TestBroker(app) as broker:
        await broker.publish("orders", Order(number=1))
        await broker.drain()
        assert sorted(m.body for m in broker.published("counts")) == [
            b'{"count":1}',
            b'{"count":6}',
        ]
        assert len(broker.published("notes")) == 2


async def test_what_a_handler_settles_itself_is_published_all_the_same() -> None:
    app = App()

    @app.subscriber("orders", group="g", to="out")
    async def settle(order: Order, delivery: Delivery) -> int:
        await (delivery.ack() if order.number else delivery.reject("nothing ordered"))
        return order.number

    async with TestBroker(app) as broker:
        for number in (0, 1):
            await broker.publish("orders", Order(number=number))
        await broker.drain()
        assert [message.body for message in broker.published("out")] == [b"0", b"1"]
        assert len(broker.dead_letters("orders", group="g")) == 1
