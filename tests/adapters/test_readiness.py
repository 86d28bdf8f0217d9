"""Health on real servers: it is off while the server is dead, and comes back with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import anymq
from anymq.health import Health
from anymq.testing.harness import random_name
from brokers import server
from tests.adapters.support import eventually, faulty_servers

NOTICED = 60.0
"""Seconds within which a dead server is noticed, and one that is back."""
ANSWERS = 1.0
"""Seconds for a report, which is what a probe waits."""


async def reported(app: anymq.App, holds: Callable[[Health], bool]) -> Health:
    """Return the first report that `holds`; each must come in time."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(NOTICED):
        while True:
            began = loop.time()
            report = await app.health()
            # The event loop of a loaded machine may be late itself.
            assert loop.time() - began < 5 * ANSWERS
            if holds(report):
                return report
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("backend", faulty_servers())
async def test_a_killed_server_turns_readiness_off_until_it_is_back(backend: str) -> None:
    faulty = server(backend, instance="faults")
    faulty.up()
    topic, handled = random_name(), list[str]()
    app = anymq.App(faulty.url)

    @app.subscriber(topic, group="g")
    async def handle(body: str) -> None:
        handled.append(body)

    async def all_handled() -> bool:
        return set(handled) == {"before", "after"}

    try:
        async with app:
            await app.publish(topic, "before")
            await reported(app, lambda report: report.ready)
            faulty.kill()
            report = await reported(app, lambda report: not report.ready)
            assert report.live, report.faults
            assert report.problems
            faulty.up()
            await reported(app, lambda report: report.ready)
            await app.publish(topic, "after", timeout=30)
            await eventually(all_handled, seconds=60)
            text = await app.metrics()
            assert "anymq_ready 1\n" in text
            assert f'messaging_destination_name="{topic}"' in text
    finally:
        faulty.up()


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_health_of_the_built_in_backends(scheme: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db" if scheme == "sqlite" else "memory://"
    app = anymq.App(url)
    handled = asyncio.Event()

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None:
        handled.set()

    async def counted() -> bool:
        (one,) = (await app.health()).subscriptions
        return (one.consumed, one.settled, one.in_flight) == (1, 1, 0)

    async with app:
        await app.publish("t", "x")
        await asyncio.wait_for(handled.wait(), 30)
        await eventually(counted, seconds=30)
        report = await reported(app, lambda report: report.ready)
        assert report.broker is not None
        assert report.broker.backend == scheme
        assert "anymq_consumer_lag{" in await app.metrics()
