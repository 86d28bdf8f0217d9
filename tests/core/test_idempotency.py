"""Idempotency on the memory broker: claims, renewals, and the number of store calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from anymq import App, Idempotency
from anymq.driver import Claim, ClaimState, Store
from anymq.identity import joined
from anymq.testing.tools import until
from anymq_memory import MemoryStore


class Watched(MemoryStore):
    """A store that counts renewals by message, and fails the first `failures` of them."""

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
        """Return when the claim of message `id` has been renewed `count` times."""
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


async def test_a_failed_renewal_is_retried() -> None:
    store, app, ended = Watched(failures=1), App("memory://"), asyncio.Event()

    @app.subscriber("t", group="g", idempotency=Idempotency(store, lease=0.3))
    async def handle(body: str) -> None:
        await store.renewals("x", 2)
        ended.set()

    async with app:
        await app.broker.publish("t", "x", id="x")
        await ended.wait()


async def test_one_timer_renews_a_thousand_claims() -> None:
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


class Counted(MemoryStore):
    """A store that counts its calls; the first `failing` completions fail."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.completed: list[int] = []
        self.abandoned: list[int] = []
        self.failing = 0

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        self.begun.append(len(keys))
        await asyncio.sleep(0)
        return await super().begin_many(keys, owner, lease)

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        self.completed.append(len(keys))
        if self.failing > 0:
            self.failing -= 1
            raise ConnectionError("not now")
        await super().complete_many(keys, owner, keep)

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        self.abandoned.append(len(keys))
        await asyncio.sleep(0.01)
        await super().abandon_many(keys, owner)

    async def states(self, prefix: str, count: int) -> Counter[ClaimState]:
        """Return the claim states of messages `0` to `count` for another owner."""
        keys = [f"{prefix}{number}" for number in range(count)]
        refused = await super().begin_many(keys, "another", 0.0)
        found = [refused[key].state if key in refused else ClaimState.NEW for key in keys]
        return Counter(found)


def collecting(store: Store, **options: Any) -> tuple[App, list[str]]:
    """Return an app that handles the messages of `t`, and the list of handled bodies."""
    app, handled = App("memory://"), list[str]()

    @app.subscriber("t", group="g", idempotency=Idempotency(store, **options))
    async def handle(body: str) -> None:
        handled.append(body)

    return app, handled


async def published(app: App, count: int) -> str:
    """Publish `count` messages with their numbers as ids; return the prefix of their keys."""
    await app.broker.publish_many(
        "t", [str(number) for number in range(count)], id=lambda body: body
    )
    return f"~{joined('t', 'g', None, 'anymq')}|"


async def becomes(store: Counted, prefix: str, wanted: dict[ClaimState, int]) -> None:
    """Return when another owner sees `state` for `count` messages."""
    count = sum(wanted.values())
    async with asyncio.timeout(20):
        found = await store.states(prefix, count)
        while found != wanted:
            await asyncio.sleep(0.02)
            found = await store.states(prefix, count)


async def test_a_fast_handler_makes_few_store_calls() -> None:
    store = Counted()
    app, handled = collecting(store)

    async with app:
        await published(app, 5000)
        await until(lambda: sum(store.completed) == 5000)
    assert len(set(handled)) == len(handled) == 5000
    assert sum(store.begun) == 5000
    assert len(store.begun) < 250
    assert len(store.completed) < 250


async def test_a_slow_handler_claims_only_its_current_message() -> None:
    store, app = Counted(), App("memory://")
    running, go_on = asyncio.Semaphore(0), asyncio.Event()

    @app.subscriber("t", group="g", concurrency=4, idempotency=Idempotency(store))
    async def handle(body: str) -> None:
        running.release()
        await go_on.wait()

    async with app:
        prefix = await published(app, 100)
        for _ in range(4):
            await running.acquire()
        assert (await store.states(prefix, 100))[ClaimState.IN_PROGRESS] == 4
        go_on.set()
        await until(lambda: sum(store.completed) == 100)


async def test_unused_preclaims_are_abandoned_on_close() -> None:
    store, app = Counted(), App("memory://", drain_timeout=0.0)
    stuck = asyncio.Event()
    handled = 0

    @app.subscriber("t", group="g", idempotency=Idempotency(store))
    async def handle(body: str) -> None:
        nonlocal handled
        if handled == 700:
            stuck.set()
            await asyncio.Event().wait()
        handled += 1

    async with app:
        prefix = await published(app, 5000)
        await stuck.wait()
        assert (await store.states(prefix, 5000))[ClaimState.IN_PROGRESS] > 1
    assert await store.states(prefix, 5000) == {ClaimState.DONE: 700, ClaimState.NEW: 4300}


async def test_unused_preclaims_are_abandoned_when_handlers_stall() -> None:
    store, app = Counted(), App("memory://")
    stuck, go_on = asyncio.Event(), asyncio.Event()
    handled = 0

    @app.subscriber("t", group="g", idempotency=Idempotency(store, lease=0.9))
    async def handle(body: str) -> None:
        nonlocal handled
        handled += 1
        if handled == 701:
            stuck.set()
            await go_on.wait()

    async with app:
        prefix = await published(app, 5000)
        await stuck.wait()
        await becomes(
            store, prefix, {ClaimState.DONE: 700, ClaimState.IN_PROGRESS: 1, ClaimState.NEW: 4299}
        )
        go_on.set()
        await until(lambda: sum(store.completed) == 5000)
    assert handled == 5000


async def test_an_expired_preclaim_is_claimed_again_by_each_caller() -> None:
    store, app = Counted(), App("memory://")
    handled: list[int] = []

    @app.subscriber("t", group="g", concurrency=8, idempotency=Idempotency(store, lease=0.4))
    async def handle(body: str) -> None:
        handled.append(int(body))
        await asyncio.sleep(0.0005)

    async with app:
        await published(app, 3000)
        await until(lambda: sum(store.completed) == 3000)
    assert any(count > 1 for count in store.abandoned), "nothing was ahead for so long"
    assert max(abs(index - number) for index, number in enumerate(handled)) < 500, "was postponed"


async def test_completions_are_stored_once_the_store_recovers() -> None:
    store = Counted()
    store.failing = 3
    app, handled = collecting(store, lease=0.6)

    async with app:
        prefix = await published(app, 3)
        await until(lambda: len(handled) == 3 and store.failing == 0)
        await becomes(store, prefix, {ClaimState.DONE: 3})
    assert sorted(handled) == ["0", "1", "2"]


async def test_complete_of_a_store_runs_in_the_context_of_the_handler() -> None:
    wanted: ContextVar[str] = ContextVar("wanted")
    applied: list[str] = []

    class Applying(Counted):
        async def complete(self, key: str, owner: str, keep: float) -> bool:
            if not await super().complete(key, owner, keep):
                return False
            applied.append(wanted.get())
            if applied == ["0"]:
                raise ConnectionError("is it done?")
            return True

    store, app = Applying(), App("memory://")

    @app.subscriber("t", group="g", concurrency=3, idempotency=Idempotency(store))
    async def handle(body: str) -> None:
        wanted.set(body)
        await asyncio.sleep(0)

    async with app:
        prefix = await published(app, 300)
        await becomes(store, prefix, {ClaimState.DONE: 300})
        await until(lambda: app.subscriptions[0].in_flight == 0)
    assert sorted(applied) == sorted(map(str, range(300)))


async def test_an_effect_that_the_store_cannot_apply_is_a_failure() -> None:
    class Refusing(Counted):
        refused = 0

        async def complete(self, key: str, owner: str, keep: float) -> bool:
            if key.endswith("|0") and self.refused < 3:
                self.refused += 1
                raise ValueError("no room")
            return await super().complete(key, owner, keep)

    store = Refusing()
    app, handled = collecting(store)

    async with app:
        prefix = await published(app, 2)
        await becomes(store, prefix, {ClaimState.DONE: 2})
    assert handled == ["0", "1", "0"]


class Old(Counted):
    """A store with completions under the keys of an earlier release."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        self.asked += keys
        return await super().begin_many(keys, owner, lease)


async def test_completions_under_old_keys_are_recognised() -> None:
    store = Old()
    await store.begin("g|anymq|done", "before", 60)
    await store.complete("g|anymq|done", "before", 60)
    await store.begin("g|anymq|held", "before", 1)
    app, handled = collecting(store)
    async with app:
        for id in ("done", "held", "new"):
            await app.broker.publish("t", id, id=id)
        await until(lambda: set(handled) == {"new", "held"}, what="the old lease has ended")
    assert sorted(handled) == ["held", "new"]
    name = f"~{joined('t', 'g', None, 'anymq')}|"
    states = [
        (await store.begin(f"{name}{id}", "other", 1)).state for id in ("done", "held", "new")
    ]
    assert states == [ClaimState.NEW, ClaimState.DONE, ClaimState.DONE]
    for id in ("held", "new"):
        assert (await store.begin(f"g|anymq|{id}", "other", 1)).state is ClaimState.NEW, (
            "still claimed"
        )


async def test_a_store_without_old_keys_is_not_queried_for_them() -> None:
    store = Old()
    await store.begin("other|anymq|1", "before", 60)
    app, handled = collecting(store)
    async with app:
        name = await published(app, 10)
        await until(lambda: len(handled) == 10)
    assert [key for key in store.asked if not key.startswith(name)] == ["other|anymq|1"]
