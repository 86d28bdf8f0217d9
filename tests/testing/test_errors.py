"""`TestBroker.drain` raises what handlers raised, unless the test expects it."""

from __future__ import annotations

import asyncio

import pytest

from anymq import App, Reject, Retry, RetryAfter
from anymq.testing import TestBroker

RETRY = Retry(attempts=3, initial=60, jitter=False)


def failing(*errors: Exception) -> App:
    """An app whose handler raises the errors of `errors`, one at each call, and then no more."""
    app, outcomes = App(), iter(errors)

    @app.subscriber("orders", group="billing", retry=RETRY)
    async def bill(order: str) -> None:
        if error := next(outcomes, None):
            raise error

    return app


async def test_draining_raises_the_error_itself_once_with_the_message_and_the_way_out() -> None:
    error = ValueError("no bank today")
    async with TestBroker(failing(error)) as broker:
        await broker.publish("orders", "o-1", id="o-1")
        with pytest.raises(ValueError, match="no bank today") as raised:
            await broker.drain()
        assert raised.value is error
        (note,) = error.__notes__
        assert "message o-1 from orders (group billing, attempt 1)" in note
        assert "expect_errors(ValueError)" in note
        await broker.advance(60)


async def test_the_traceback_begins_in_the_handler() -> None:
    async with TestBroker(failing(ValueError("no bank today"))) as broker:
        await broker.publish("orders", "o-1")
        with pytest.raises(ValueError, match="no bank today") as raised:
            await broker.drain()
        names = [entry.name for entry in raised.traceback.filter(raised)]
        assert names[-1] == "bill"
        assert "attempt" not in names
        await broker.advance(60)


async def test_only_the_first_error_of_a_message_is_raised() -> None:
    async with TestBroker(failing(ValueError("first"), KeyError("second"))) as broker:
        await broker.publish("orders", "o-1")
        with pytest.raises(ValueError, match="first"):
            await broker.advance(300)
        assert [item.outcome for item in broker.deliveries("orders")] == ["nack", "nack", "ack"]


async def test_the_errors_of_several_messages_are_raised_together() -> None:
    async with TestBroker(failing(ValueError("a"), KeyError("b"))) as broker:
        for order in ("o-1", "o-2"):
            await broker.publish("orders", order)
        with pytest.raises(ExceptionGroup, match="handlers failed for 2 messages") as raised:
            await broker.drain()
        assert [type(error) for error in raised.value.exceptions] == [ValueError, KeyError]


async def test_expected_errors_are_not_raised_but_others_are() -> None:
    async with TestBroker(failing(ValueError("expected"), KeyError("not"))) as broker:
        broker.expect_errors(ValueError)
        await broker.publish("orders", "o-1")
        await broker.drain()
        with pytest.raises(KeyError, match="not"):
            await broker.advance(60)


async def test_errors_may_be_expected_after_they_were_raised_and_before_draining() -> None:
    async with TestBroker(failing(ValueError("late"))) as broker:
        await broker.publish("orders", "o-1")
        broker.expect_errors()
        await broker.drain()


@pytest.mark.parametrize("error", [Reject("no such customer"), RetryAfter(1, "busy")])
async def test_a_decision_of_the_handler_is_no_error(error: Exception) -> None:
    async with TestBroker(failing(error)) as broker:
        await broker.publish("orders", "o-1")
        await broker.drain()


async def test_leaving_without_draining_raises_what_handlers_raised() -> None:
    app, called = App(), asyncio.Event()

    @app.subscriber("orders", group="billing", retry=RETRY)
    async def bill(order: str) -> None:
        called.set()
        raise ValueError("unseen")

    async def test() -> None:
        async with TestBroker(app) as broker:
            await broker.publish("orders", "o-1")
            await called.wait()

    with pytest.raises(ValueError, match="unseen"):
        await test()


async def test_the_failure_of_the_test_itself_is_not_replaced() -> None:
    async def test() -> None:
        async with TestBroker(failing(ValueError("unseen"))) as broker:
            broker.fail_next("bill", times=5)
            await broker.publish("orders", "o-1")
            raise AssertionError("of the test")

    with pytest.raises(AssertionError, match="of the test"):
        await test()


async def test_a_handler_that_hangs_ends_the_draining() -> None:
    app, event = App(), asyncio.Event()

    @app.subscriber("orders", group="billing")
    async def bill(order: str) -> None:
        await event.wait()

    async with TestBroker(app) as broker:
        await broker.publish("orders", "o-1")
        with pytest.raises(TimeoutError, match=r"within 0\.2 s; running: <attempt 1 at .* orders"):
            await broker.drain(timeout=0.2)
        event.set()
        await broker.drain()
