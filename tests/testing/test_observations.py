"""What `TestBroker` tells of messages, deliveries and dead letters, and the passing of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from anymq import App, DeadLetter, Delivery, NotFound, Reject, Retry, StateError, Topic
from anymq.testing import TestBroker

ORDERS = Topic[str]("orders", str)
REMINDERS = Topic[str]("reminders", str)


def shop() -> App:
    app = App()

    @app.subscriber(ORDERS, group="billing", retry=Retry(attempts=2, initial=60, jitter=False))
    async def bill(order: str, delivery: Delivery) -> None:
        if order == "bad":
            raise ValueError("no such customer")
        await app.publish(REMINDERS, order, delay=3600, key=order)

    @app.subscriber(REMINDERS, group="mail", dead_letter=DeadLetter(topic="returned"))
    async def remind(order: str) -> None:
        if order == "moved":
            raise Reject("moved away")

    @app.subscriber(ORDERS, group=None)
    async def show(order: str) -> None:
        if order == "bad":
            raise Reject("cannot be shown")

    return app


async def test_a_delayed_message_is_published_when_it_is_due() -> None:
    async with TestBroker(shop()) as broker:
        await broker.publish(ORDERS, "o-1")
        await broker.advance(3599)
        assert broker.published(REMINDERS) == []
        await broker.advance(1)
        (reminder,) = broker.published(REMINDERS)
        assert (reminder.key, reminder.decode(str)) == ("o-1", "o-1")
        assert [item.outcome for item in broker.deliveries(REMINDERS)] == ["ack"]


async def test_a_time_of_delivery_is_computed_from_the_real_clock() -> None:
    app = App()

    @app.subscriber(ORDERS, group="billing")
    async def bill(order: str) -> None:
        await app.publish(REMINDERS, order, deliver_at=datetime.now(UTC) + timedelta(hours=1))

    async with TestBroker(app) as broker:
        await broker.publish(ORDERS, "o-1")
        await broker.advance(3500)
        assert broker.published(REMINDERS) == []
        await broker.advance(200)
        assert len(broker.published(REMINDERS)) == 1


async def test_dead_letters_are_those_of_all_groups_or_of_one() -> None:
    async with TestBroker(shop()) as broker:
        broker.expect_errors(ValueError)
        await broker.publish(ORDERS, "bad")
        assert broker.dead_letters(ORDERS) == []
        await broker.advance(60)
        by_group = {letter.group: letter for letter in broker.dead_letters(ORDERS)}
        assert set(by_group) == {"billing", None}
        assert by_group[None].reason == "cannot be shown"
        assert by_group["billing"].attempts == 2
        assert by_group["billing"].error_type == "builtins.ValueError"
        assert by_group["billing"].message.decode(str) == "bad"
        assert broker.dead_letters("orders", group="billing") == [by_group["billing"]]


async def test_dead_letters_are_found_in_the_topic_that_a_handler_chose() -> None:
    async with TestBroker(shop()) as broker:
        await broker.publish(REMINDERS, "moved")
        await broker.drain()
        (letter,) = broker.dead_letters(REMINDERS)
        assert (letter.group, letter.reason) == ("mail", "moved away")
        assert len(broker.published("returned")) == 1


async def test_redriven_letters_are_none_any_more() -> None:
    async with TestBroker(shop()) as broker:
        await broker.publish(REMINDERS, "moved")
        await broker.drain()
        (letter,) = broker.dead_letters(REMINDERS)
        letters = broker.broker.admin.dead_letters(REMINDERS, "mail", stored_in="returned")
        assert await letters.redrive(letter) == 1
        await broker.drain()
        (again,) = broker.dead_letters(REMINDERS)
        assert again.position != letter.position


async def test_deliveries_are_selected_by_message_and_group() -> None:
    async with TestBroker(shop()) as broker:
        broker.expect_errors(ValueError)
        await broker.publish(ORDERS, "bad", id="one")
        await broker.publish(ORDERS, "o-2", id="two")
        await broker.drain()
        assert {(item.message.id, item.group) for item in broker.deliveries(ORDERS)} == {
            ("one", "billing"),
            ("one", None),
            ("two", "billing"),
            ("two", None),
        }
        (attempt,) = broker.deliveries("orders", id="one", group="billing")
        assert (attempt.outcome, attempt.delay, attempt.number) == ("nack", 60, 1)
        assert attempt.ended is not None
        assert attempt.ended >= attempt.started
        text = repr(attempt)
        for part in ("attempt 1 at one", "of orders by billing", "nack for 60 s", "no such cust"):
            assert part in text
        assert broker.deliveries(ORDERS, id="three") == []


async def test_a_failed_assertion_shows_that_messages_are_due() -> None:
    async with TestBroker(shop()) as broker:
        await broker.publish(ORDERS, "o-1")
        assert "call drain()" in repr(broker)
        await broker.drain()
        assert repr(broker) == "<TestBroker on memory://>"
    assert "hunter2" not in repr(TestBroker(shop(), url="redis://me:hunter2@localhost"))


async def test_names_that_nothing_reads_are_refused() -> None:
    async with TestBroker(shop()) as broker:
        for look in (broker.deliveries, broker.dead_letters):
            with pytest.raises(NotFound, match="no handler of the app reads 'odrers'"):
                look("odrers")
            with pytest.raises(NotFound, match="for the group 'biling'"):
                look(ORDERS, group="biling")


async def test_the_app_is_as_before_after_a_test() -> None:
    app = shop()
    functions = [item.function for item in app.subscribers]
    for _ in range(2):
        async with TestBroker(app) as broker:
            await broker.publish(ORDERS, "o-1")
            await broker.drain()
            assert len(broker.published(ORDERS)) == 1
            assert len(broker.deliveries(ORDERS, group="billing")) == 1
    assert [item.function for item in app.subscribers] == functions
    with pytest.raises(StateError):
        _ = app.broker
