"""Each service alone, on the memory broker with a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from anymq import Message, Retry
from anymq.testing import TestBroker
from examples.orders.events import (
    InvoiceReceived,
    OrderCancelled,
    OrderExpired,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    PaymentDue,
    StockReserved,
    event_id,
)
from examples.orders.gateway import DECLINES, Declined, declines_twice
from examples.orders.ledger import ledger
from examples.orders.orders import orders
from examples.orders.payment import payment
from examples.orders.run import DUE, Run
from examples.orders.serve import application
from examples.orders.shipping import shipping
from examples.orders.state import State
from examples.orders.stock import stock
from examples.orders.view import View
from tests.examples.support import invoice, line

DECLINED = next(number for number in map(str, range(100)) if declines_twice(number))
STEADY = next(number for number in map(str, range(100)) if not declines_twice(number))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("memory://", "test", tmp_path)


def placed(number: str = STEADY, *lines: Any) -> OrderPlaced:
    return OrderPlaced(invoice=number, country="France", lines=lines or (line(),))


def captured(number: str = STEADY) -> PaymentCaptured:
    return PaymentCaptured(invoice=number, country="France", amount=Decimal(3), attempts=1)


def message(topic: str, id: str, correlation: str = "test/1") -> Message:
    return Message(id=id, topic=topic, body=b"", correlation_id=correlation)


async def rows(run: Run, service: str, query: str) -> list[tuple[Any, ...]]:
    async with State(run.file(service)) as state:
        return state.db.execute(query).fetchall()


async def test_orders_tells_orders_from_cancellations(run: Run) -> None:
    async with TestBroker(application(run, orders)) as broker:
        await broker.publish(run.received, invoice("1"), id="test/1")
        await broker.publish(run.received, invoice("C2", line(-2)), id="test/C2")
        await broker.publish(run.received, invoice("c3"), id="test/c3")
        await broker.drain()
        assert {it.key for it in broker.published(run.placed)} == {"1", "c3"}
        (cancelled,) = broker.published(run.cancelled)
    assert cancelled.id == "test/C2/OrderCancelled"
    assert (cancelled.correlation_id, cancelled.causation_id) == ("test/C2", "test/C2")
    assert OrderCancelled.model_validate_json(cancelled.body).refund == Decimal("-3.00")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(quantity=0), "A: the quantity is 0"),
        (line(quantity=-1), "A: the quantity is -1"),
        (line(price="0.00"), "A: the price is 0.00"),
        (line(price="-11062.06"), "A: the price is -11062.06"),
        (line(customer=""), "there is no customer"),
    ],
)
async def test_payment_rejects_what_cannot_be_paid(run: Run, bad: Any, reason: str) -> None:
    async with TestBroker(application(run, payment)) as broker:
        await broker.publish(run.placed, placed(DECLINED, line(), bad))
        await broker.drain()
        assert broker.published(run.captured) == []
        (letter,) = broker.dead_letters(run.placed, group="payment")
    assert letter.message.topic == run.rejected.name
    assert letter.reason == reason
    assert letter.attempts == 1


async def test_a_declined_payment_is_retried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.orders.payment.RETRY", Retry(initial=1, jitter=False))
    async with TestBroker(application(run, payment)) as broker:
        broker.expect_errors(Declined)
        await broker.publish(run.placed, placed(DECLINED), id="m", key=DECLINED)
        await broker.publish(run.placed, placed(STEADY), id="s", key=STEADY)
        await broker.drain()
        assert [it.key for it in broker.published(run.captured)] == [STEADY]
        for _ in range(DECLINES):
            await broker.advance(10)
        events = [
            PaymentCaptured.model_validate_json(it.body) for it in broker.published(run.captured)
        ]
        assert broker.dead_letters(run.placed, group="payment") == []
    assert [(it.invoice, it.attempts) for it in events] == [(STEADY, 1), (DECLINED, DECLINES + 1)]
    assert {it.amount for it in events} == {Decimal("3.00")}


async def test_a_charge_is_made_once(run: Run) -> None:
    app = application(run, payment)
    subscriber = app.subscribers[0]
    async with TestBroker(app) as broker:
        for _ in range(3):
            await subscriber.function(placed(STEADY), message(run.placed.name, "one"))
        events = broker.published(run.captured)
    (event, *again) = events  # one event, even if the broker has stored it several times
    assert {item.id for item in again} <= {event.id}
    assert PaymentCaptured.model_validate_json(event.body).attempts == 1
    assert await rows(run, "payment", "SELECT * FROM charges") == [(STEADY, 1)]


async def test_stock_is_never_short_and_reserves_once(run: Run) -> None:
    app = application(run, stock)
    (subscriber,) = app.subscribers
    async with TestBroker(app) as broker:
        await broker.publish(run.placed, placed("1", line(700), line(700), line(-5)))
        await broker.publish(run.placed, placed("2", line(5000)))
        await broker.drain()
        for _ in range(2):
            await subscriber.function(placed("3", line(9)), message(run.placed.name, "three"))
        assert len({event.id for event in broker.published(run.reserved)}) == 3
    ((reserved, delivered),) = await rows(run, "stock", "SELECT reserved, delivered FROM shelves")
    assert reserved == 700 + 700 + 5000 + 9
    assert delivered >= reserved
    async with State(run.file("stock")) as state:
        assert state.duplicates == 1


async def test_an_unpayable_order_expires_when_its_payment_is_due(run: Run) -> None:
    app = application(run, orders, payment, stock, ledger)
    async with TestBroker(app) as broker, View(run, 1) as view:
        await broker.publish(run.received, invoice("1", line(7), line(0)), id="test/1", key="1")
        await broker.drain()
        await broker.drain()
        assert view.progress().expired == 0
        assert await rows(run, "stock", "SELECT reserved FROM shelves") == [(7,)]
        await broker.advance(DUE.total_seconds())
        await broker.drain()
        (_, expired) = broker.published(run.placed)
        assert expired.id == "test/1/OrderExpired"
        assert OrderExpired.model_validate_json(expired.body).reason == "A: the quantity is 0"
        assert await rows(run, "stock", "SELECT reserved FROM shelves") == [(0,)]
        assert (view.progress().expired, view.progress().settled) == (1, 1)


async def test_a_due_payment_waits_for_its_order(run: Run) -> None:
    async with TestBroker(application(run, payment)) as broker:
        await broker.publish(run.due, PaymentDue(invoice="1"), id="x/PaymentDue", key="1")
        await broker.drain()
        await broker.publish(run.placed, placed("1", line(0)), key="1")
        await broker.drain()
        await broker.advance(DUE.total_seconds())
        await broker.drain()
        assert len(broker.published(run.placed)) == 2


@pytest.mark.parametrize("paid_first", [True, False])
async def test_shipping_ships_what_is_paid_and_reserved(run: Run, paid_first: bool) -> None:
    async with TestBroker(application(run, shipping)) as broker:

        async def pay() -> None:
            await broker.publish(run.captured, captured(), key=STEADY)

        async def reserve() -> None:
            await broker.publish(run.reserved, StockReserved(invoice=STEADY), key=STEADY)

        first, second = (pay, reserve) if paid_first else (reserve, pay)
        await first()
        await broker.drain()
        assert broker.published(run.shipped) == []
        await second()
        await broker.drain()
        assert [it.key for it in broker.published(run.shipped)] == [STEADY]


async def test_the_ledger_applies_each_event_once_and_in_any_order(run: Run) -> None:
    app = application(run, ledger)
    handler = {subscriber.topic.name: subscriber.function for subscriber in app.subscribers}
    events: list[tuple[str, Any, type[Any]]] = [
        (run.shipped.name, OrderShipped(invoice="1"), OrderShipped),
        (run.captured.name, captured("1"), PaymentCaptured),
        (run.reserved.name, StockReserved(invoice="1"), StockReserved),
        (run.placed.name, placed("1"), OrderPlaced),
    ]
    async with TestBroker(app), View(run, 1) as view:
        for topic, event, kind in events * 2:
            assert view.progress().settled == (view.progress().events == len(events))
            received = message(topic, event_id(message(topic, "x"), kind))
            await handler[topic](event, received)
        assert view.progress().settled == 1
        figures = await view.figures()
    assert (figures.orders_placed, figures.orders_shipped, int(figures.revenue)) == (1, 1, 3)
    assert figures.duplicates_filtered == len(events)
    assert figures.revenue_by_country == {"France": 3}


async def test_a_rejected_order_is_settled_by_its_dead_letter(run: Run) -> None:
    app = application(run, payment, stock, ledger)
    async with TestBroker(app) as broker, View(run, 1) as view:
        await broker.publish(run.placed, placed("1", line(customer="")))
        await broker.drain()
        await broker.drain()
        assert view.progress().settled == 1
        figures = await view.figures()
    assert (figures.orders_placed, figures.dead_letters, int(figures.revenue)) == (1, 1, 0)
    query = "SELECT reason FROM orders"
    assert await rows(run, "ledger", query) == [("there is no customer",)]


async def test_what_is_done_is_undone_if_a_part_of_it_fails(run: Run) -> None:
    async with State(run.file("a")) as state:

        def apply(fail: Callable[[], object]) -> None:
            with state.transaction():
                assert state.first_time("event")
                fail()

        with pytest.raises(ZeroDivisionError):
            apply(lambda: 1 / 0)
        apply(int)
        assert state.duplicates == 0


def test_an_invoice_is_typed(run: Run) -> None:
    assert run.received.payload is InvoiceReceived
    assert run.received.name == "orders-test.received"
