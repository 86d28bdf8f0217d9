"""What an outage of the server writes into the log: a few lines, those of the client included."""

from __future__ import annotations

import asyncio
import logging

import pytest

import anymq
from anymq.testing.harness import random_name
from brokers import server
from tests.adapters.support import eventually, faulty_servers

SUBSCRIPTIONS = 3
SECONDS = 6.0
MOST = 30
"""Lines: without care Kafka's client alone writes hundreds a second."""


@pytest.mark.parametrize("backend", faulty_servers())
async def test_an_outage_is_said_in_few_lines(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = server(backend, instance="faults")
    faulty.up()
    topic, handled = random_name(), 0

    async def handler(body: bytes) -> None:
        nonlocal handled
        handled += 1

    async def all_ready() -> bool:
        return handled >= SUBSCRIPTIONS

    try:
        app = anymq.App(faulty.url)
        for number in range(SUBSCRIPTIONS):
            app.subscriber(f"{topic}.{number}", group="g")(handler)
        async with app:
            for number in range(SUBSCRIPTIONS):
                await app.publish(f"{topic}.{number}", b"x")
            await eventually(all_ready, seconds=60)
            caplog.clear()
            faulty.kill()
            with pytest.raises(anymq.TransientError):
                await app.publish(f"{topic}.0", b"x", timeout=SECONDS)
            await asyncio.sleep(0.1)
            lines = [one for one in caplog.records if one.levelno >= logging.WARNING]
            assert 0 < len(lines) <= MOST, [one.getMessage() for one in lines[:50]]
            assert [one.name for one in lines if one.exc_info] == []
            faulty.up()
    finally:
        faulty.up()
