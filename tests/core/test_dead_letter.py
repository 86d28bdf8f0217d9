"""`DeadLetter`: its log lines match its effect."""

from __future__ import annotations

import pytest

from anymq import Acknowledge, App, Delivery, Reject, Retry
from anymq.testing import TestBroker


async def test_a_rejected_delivery_that_is_settled_is_not_dead_lettered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.subscriber(
        "too-late", group="g", acknowledge=Acknowledge("receipt"), retry=Retry(attempts=1)
    )
    async def on_receipt(body: str) -> None:
        raise Reject("too late")

    @app.subscriber("too-late", group="h", retry=Retry(attempts=1))
    async def by_hand(delivery: Delivery) -> None:
        await delivery.ack()
        raise ValueError("too late")

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("too-late", "x")
        await broker.drain()
        assert not broker.dead_letters("too-late", group="g")
        assert not broker.dead_letters("too-late", group="h")
    lines = [record.getMessage() for record in caplog.records if "too late" in record.getMessage()]
    assert len(lines) == 2
    assert not [text for text in lines if "moving to the dead-letter topic" in text]
    assert all("it is not dead-lettered" in text for text in lines)
