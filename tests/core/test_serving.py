"""`App.serve` and `App.stop`: what drains, and what ends at once."""

from __future__ import annotations

import asyncio

import pytest

from anymq import App
from anymq.testing.tools import until

WITHIN = 60.0
NEVER = 3600.0


class Service:
    """An app whose only handler never ends, and the task that serves it."""

    def __init__(self) -> None:
        self.app = App("memory://", drain_timeout=NEVER)
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

        @self.app.subscriber("t", group="g")
        async def handle(body: str) -> None:
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    async def start(self) -> asyncio.Task[None]:
        started = asyncio.Event()
        serving = asyncio.create_task(self.app.serve(signals=False, started=started.set))
        async with asyncio.timeout(WITHIN):
            await started.wait()
            await self.app.publish("t", "x")
            await self.begun.wait()
        return serving


@pytest.mark.parametrize("first", [None, 0.0, NEVER], ids=["once", "twice", "after a drain"])
async def test_stopping_with_0_ends_at_once(first: float | None) -> None:
    service = Service()
    serving = await service.start()
    if first is not None:
        service.app.stop(drain_timeout=first)
    service.app.stop(drain_timeout=0)
    async with asyncio.timeout(WITHIN):
        await serving
    assert service.cancelled.is_set()


async def test_a_drain_that_runs_is_cut_short() -> None:
    service = Service()
    serving = await service.start()
    subscriptions = service.app.subscriptions
    service.app.stop()
    async with asyncio.timeout(WITHIN):
        await until(lambda: subscriptions[0].closing)
        assert not service.cancelled.is_set()
        service.app.stop(drain_timeout=0)
        await serving
    assert service.cancelled.is_set()


async def test_the_time_to_drain_can_be_given() -> None:
    service = Service()
    serving = await service.start()
    subscriptions = service.app.subscriptions
    service.app.stop(drain_timeout=0.05)
    async with asyncio.timeout(WITHIN):
        await serving
    assert service.cancelled.is_set()
    assert [item.cut_short for item in subscriptions] == [1]


async def test_cancelling_it_is_not_suppressed() -> None:
    service = Service()
    serving = await service.start()
    service.app.stop()
    serving.cancel()
    async with asyncio.timeout(WITHIN):
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
