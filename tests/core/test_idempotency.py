"""Idempotency on the memory broker: whose claim is renewed, and what that costs."""

from __future__ import annotations

import asyncio
from collections import Counter

from anymq import App, Idempotency
from anymq_memory import MemoryStore


class Watched(MemoryStore):
    """Counts renewals by message, and fails the first `failures` of them."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.renewed: Counter[str] = Counter()
        self._failures = failures
        self._renewal = asyncio.Condition()

    async def renew(self, key: str, owner: str, lease: float) -> None:
        async with self._renewal:
            self.renewed[key.rpartition("|")[2]] += 1
            self._renewal.notify_all()
        if self.renewed.total() <= self._failures:
            raise ConnectionError("not now")
        await super().renew(key, owner, lease)

    async def renewals(self, id: str, count: int) -> None:
        """Return when the claim of message `id` has been renewed so often."""
        async with asyncio.timeout(20), self._renewal:
            await self._renewal.wait_for(lambda: self.renewed[id] >= count)


async def test_a_claim_is_renewed_while_its_handler_runs_and_no_longer() -> None:
    store, app, ended = Watched(), App("memory://"), asyncio.Event()

    @app.subscriber("t", group="g", idempotency=Idempotency(store, lease=0.3))
    async def handle(body: str) -> None:
        if body != "quick":
            await store.renewals(body, 3)
        if body == "last":
            ended.set()

    async with app:
        for body in ("first", "quick", "last"):
            await app.broker.publish("t", body, id=body)
        await ended.wait()
    assert 3 <= store.renewed["first"] <= 4
    assert store.renewed["quick"] == 0


async def test_a_renewal_that_fails_is_repeated() -> None:
    store, app, ended = Watched(failures=1), App("memory://"), asyncio.Event()

    @app.subscriber("t", group="g", idempotency=Idempotency(store, lease=0.3))
    async def handle(body: str) -> None:
        await store.renewals("x", 2)
        ended.set()

    async with app:
        await app.broker.publish("t", "x", id="x")
        await ended.wait()


async def test_one_timer_looks_after_a_thousand_claims() -> None:
    loop = asyncio.get_running_loop()
    app, everyone = App("memory://"), asyncio.Barrier(1001)

    @app.subscriber("t", group="g", concurrency=1000, idempotency=Idempotency("memory://"))
    async def wait(number: int) -> None:
        await everyone.wait()
        await everyone.wait()

    async with app:
        before = len(loop._scheduled)  # type: ignore[attr-defined]
        await app.broker.publish_many("t", list(range(1000)))
        await everyone.wait()
        assert len(loop._scheduled) - before < 50  # type: ignore[attr-defined]
        await everyone.wait()
