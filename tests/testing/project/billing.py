"""The tests of the application: `test_plugin` runs them under each plugin for async tests."""

from collections.abc import Callable

from anymq import App
from anymq.testing import TestBroker
from tests.testing.project.shop import BILLS, ORDERS, REMINDERS, Order, app, bill, remind

Test = Callable[[App], TestBroker]


async def test_an_order_is_billed_and_reminded_of(anymq_test: Test) -> None:
    order = Order(number="o-1", total=9.5)
    async with anymq_test(app) as broker:
        await broker.publish(ORDERS, order, key="o-1")
        await broker.drain(timeout=60)
        assert [message.key for message in broker.published(BILLS)] == ["o-1"]
        await broker.advance(2, timeout=60)
        assert broker.handled(remind) == [order]
        assert broker.published(REMINDERS)[0].decode(Order) == order


async def test_a_bank_that_is_down_delays_the_bill(anymq_test: Test) -> None:
    async with anymq_test(app) as broker:
        broker.fail_next(bill, ConnectionError("the bank is down"), times=2)
        receipt = await broker.publish(ORDERS, Order(number="o-2", total=1))
        await broker.advance(4, timeout=60)
        attempts = broker.deliveries(ORDERS, id=receipt.id)
        assert [item.outcome for item in attempts] == ["nack", "nack", "ack"]
        assert len(broker.published(BILLS)) == 1


async def test_a_negative_total_is_a_dead_letter(anymq_test: Test) -> None:
    async with anymq_test(app) as broker:
        broker.expect_errors(ValueError)
        await broker.publish(ORDERS, Order(number="o-3", total=-1))
        await broker.advance(4, timeout=60)
        (letter,) = broker.dead_letters(ORDERS)
        assert (letter.group, letter.attempts) == ("billing", 3)
        assert "a negative total" in str(letter.reason)
        assert broker.published(BILLS) == []
