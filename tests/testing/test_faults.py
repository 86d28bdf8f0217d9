"""`TestBroker` injects failures of handlers, and duplicates."""

from __future__ import annotations

from typing import Any, Unpack

import pytest

from anymq import App, ConfigurationError, Delivery, Idempotency, Message, Retry, Topic
from anymq.consuming.batch import Batch
from anymq.subscriber import SubscriberSettings
from anymq.testing import TestBroker

RETRY = Retry(attempts=3, initial=60, jitter=False)
ORDERS = Topic[str]("orders", str)


class Shop:
    """An app of one handler, and its effects."""

    def __init__(self, **settings: Unpack[SubscriberSettings]) -> None:
        self.app = App()
        self.effects: list[str] = []
        stated: SubscriberSettings = {"retry": RETRY, **settings}
        register = self.app.subscriber(ORDERS, group="billing", **stated)
        self.bill = register(self._bill)

    async def _bill(self, order: str) -> None:
        self.effects.append(order)


async def test_the_next_calls_fail_and_are_retried() -> None:
    shop = Shop()
    async with TestBroker(shop.app) as broker:
        broker.fail_next(shop.bill, ConnectionError("cut"), times=2)
        receipt = await broker.publish(ORDERS, "o-1")
        await broker.drain()
        assert shop.effects == []
        await broker.advance(180)
        assert shop.effects == ["o-1"]
        attempts = broker.deliveries(ORDERS, id=receipt.id)
        assert [(item.number, item.outcome, item.delay) for item in attempts] == [
            (1, "nack", 60),
            (2, "nack", 120),
            (3, "ack", None),
        ]
        assert [str(item.error) for item in attempts] == ["cut", "cut", "None"]
        assert broker.handled(shop.bill) == ["o-1"]


async def test_as_many_failures_as_attempts_end_in_the_dead_letters() -> None:
    shop = Shop()
    async with TestBroker(shop.app) as broker:
        broker.fail_next(shop.bill, times=3)
        await broker.publish(ORDERS, "o-1")
        await broker.advance(3600)
        await broker.publish(ORDERS, "o-2")
        await broker.drain()
        (letter,) = broker.dead_letters(ORDERS)
        assert (letter.message.decode(str), letter.attempts) == ("o-1", 3)
    assert shop.effects == ["o-2"]


@pytest.mark.parametrize("named", ["function", "name", "topic and group"])
async def test_a_handler_is_named_by_function_by_name_or_by_topic_and_group(named: str) -> None:
    shop = Shop()
    handlers: dict[str, Any] = {
        "function": shop.bill,
        "name": "_bill",
        "topic and group": (ORDERS, "billing"),
    }
    async with TestBroker(shop.app) as broker:
        broker.fail_next(handlers[named])
        await broker.publish(ORDERS, "o-1")
        await broker.drain()
        assert shop.effects == []
        (attempt,) = broker.deliveries(ORDERS)
        assert isinstance(attempt.error, RuntimeError)


async def test_a_handler_that_the_app_does_not_have_is_refused_with_a_suggestion() -> None:
    async with TestBroker(Shop().app) as broker:
        with pytest.raises(ConfigurationError, match=r"did you mean _bill\?"):
            broker.fail_next("_bil")
        with pytest.raises(ConfigurationError, match=r"did you mean \('orders', 'billing'\)"):
            broker.fail_next(("orders", "biling"))
        with pytest.raises(ConfigurationError, match="it has _bill"):
            broker.fail_next(print)  # type: ignore[arg-type]  # pyright: ignore


@pytest.mark.parametrize(
    ("error", "times"), [(KeyboardInterrupt, 1), ("text", 1), (ValueError, 0), (ValueError, -1)]
)
async def test_what_cannot_be_raised_is_refused(error: object, times: int) -> None:
    shop = Shop()
    async with TestBroker(shop.app) as broker:
        with pytest.raises(ConfigurationError, match="fail_next"):
            broker.fail_next(shop.bill, error, times=times)  # type: ignore[arg-type]


async def test_failures_that_were_not_used_fail_the_test() -> None:
    shop = Shop()

    async def test() -> None:
        async with TestBroker(shop.app) as broker:
            broker.fail_next(shop.bill, times=2)
            await broker.publish(ORDERS, "o-1")
            await broker.drain()

    with pytest.raises(AssertionError, match=r"1 of 2 failures of .*_bill"):
        await test()


async def test_every_message_is_handled_twice() -> None:
    shop = Shop()
    async with TestBroker(shop.app) as broker:
        await broker.publish(ORDERS, "before")
        await broker.drain()
        broker.duplicate_all()
        await broker.publish(ORDERS, "o-1")
        await broker.drain()
        assert shop.effects == ["before", "o-1", "o-1"]
        found = broker.deliveries(ORDERS)
        assert [(item.number, item.duplicate, item.outcome) for item in found] == [
            (1, False, "ack"),
            (1, False, "ack"),
            (1, True, "ack"),
        ]
        assert len(broker.published(ORDERS)) == 2


async def test_idempotency_skips_the_duplicates_and_uses_no_store_of_production() -> None:
    shop = Shop(idempotency=Idempotency("redis://nowhere.invalid/3"))
    for _ in range(2):  # A second test has a store of its own.
        async with TestBroker(shop.app) as broker:
            broker.duplicate_all()
            await broker.publish(ORDERS, "o-1", id="o-1")
            await broker.drain()
    assert shop.effects == ["o-1", "o-1"]


async def test_a_message_that_fails_is_repeated_after_its_success_alone() -> None:
    shop = Shop()
    async with TestBroker(shop.app) as broker:
        broker.duplicate_all()
        broker.fail_next(shop.bill)
        await broker.publish(ORDERS, "o-1")
        await broker.advance(60)
        assert [(item.number, item.outcome) for item in broker.deliveries(ORDERS)] == [
            (1, "nack"),
            (2, "ack"),
            (2, "ack"),
        ]


async def test_the_next_message_of_a_key_waits_for_the_duplicate() -> None:
    shop = Shop(ordered=True)
    async with TestBroker(shop.app) as broker:
        broker.duplicate_all()
        for order in ("o-1", "o-2"):
            await broker.publish(ORDERS, order, key="a")
        await broker.drain()
    assert shop.effects == ["o-1", "o-1", "o-2", "o-2"]


async def test_batches_are_observed_failed_and_repeated() -> None:
    app = App()

    @app.subscriber("orders", group="billing", batch=Batch(size=2, wait=5), retry=RETRY)
    async def bill(orders: list[str]) -> None:
        """Accept the messages."""

    async with TestBroker(app) as broker:
        broker.fail_next(bill)
        for order in ("o-1", "o-2"):
            await broker.publish("orders", order)
        await broker.drain()
        assert [item.outcome for item in broker.deliveries("orders")] == ["nack", "nack"]
        broker.duplicate_all()
        await broker.advance(70)
        handled = [order for batch in broker.handled(bill) for order in batch]
        assert sorted(handled) == ["o-1", "o-1", "o-2", "o-2"]


async def test_handlers_without_a_payload_note_what_they_got() -> None:
    app = App()

    @app.subscriber("orders", group="raw")
    async def raw(message: Message) -> None:
        """Accept the message."""

    @app.subscriber("orders", group="settling")
    async def settling(delivery: Delivery) -> None:
        """Accept the message."""

    async with TestBroker(app) as broker:
        await broker.publish("orders", "o-1", id="o-1")
        await broker.drain()
        assert [message.id for message in broker.handled(raw)] == ["o-1"]
        assert [delivery.message.id for delivery in broker.handled(settling)] == ["o-1"]
