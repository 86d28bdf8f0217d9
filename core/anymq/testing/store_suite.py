"""`StoreConformance`: the contract of `Store` as tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ..driver.registry import load_store
from ..driver.store import ClaimState, Store
from ..url import URL
from .harness import random_name
from .tools import eventually, set_wall_clock


class StoreConformance:
    """The test suite of a store. Inherit it and define `url`; it opens two stores on one URL."""

    pytestmark = pytest.mark.asyncio

    def url(self, folder: Path) -> str:
        """Return the URL of one test."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
        url = URL.parse(self.url(tmp_path))
        first, second = [await load_store(url.scheme).open(url) for _ in range(2)]
        yield first, second
        await first.aclose()
        await second.aclose()
        await second.aclose()

    @pytest.fixture
    def key(self) -> str:
        return random_name("key")

    async def test_a_claim_is_new_then_in_progress_then_done(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, second = stores
        assert (await first.begin(key, "a", 30)).state is ClaimState.NEW
        claim = await second.begin(key, "b", 30)
        assert claim.state is ClaimState.IN_PROGRESS
        assert 25 < claim.remaining <= 30
        assert await first.complete(key, "a", 60)
        assert (await second.begin(key, "b", 30)).state is ClaimState.DONE
        assert (await first.begin(key, "a", 30)).state is ClaimState.DONE

    async def test_may_know_is_true_for_every_known_prefix(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, second = stores
        await first.begin(f"{key}*|held", "a", 30)
        await first.begin(f"{key}[|done", "a", 30)
        await first.complete(f"{key}[|done", "a", 30)
        assert await second.may_know(f"{key}*|")
        assert await second.may_know(f"{key}[|")

    async def test_an_owner_may_claim_again(self, stores: tuple[Store, Store], key: str) -> None:
        first, second = stores
        await first.begin(key, "a", 30)
        assert (await second.begin(key, "a", 30)).state is ClaimState.NEW

    async def test_an_abandoned_key_is_new(self, stores: tuple[Store, Store], key: str) -> None:
        first, second = stores
        await first.begin(key, "a", 30)
        await second.abandon(key, "b")
        assert (await second.begin(key, "b", 30)).state is ClaimState.IN_PROGRESS
        await first.abandon(key, "a")
        assert (await second.begin(key, "b", 30)).state is ClaimState.NEW

    async def test_a_done_key_cannot_be_abandoned(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, _ = stores
        await first.begin(key, "a", 30)
        await first.complete(key, "a", 60)
        await first.abandon(key, "a")
        assert (await first.begin(key, "b", 30)).state is ClaimState.DONE

    async def test_a_claim_ends_with_its_lease(self, stores: tuple[Store, Store], key: str) -> None:
        first, second = stores
        await first.begin(key, "a", 0.3)
        claims = [await second.begin(key, "b", 30)]
        while claims[-1].state is ClaimState.IN_PROGRESS:
            await asyncio.sleep(0.02)
            claims.append(await second.begin(key, "b", 30))
        assert claims[0].state is ClaimState.IN_PROGRESS
        assert claims[-1].state is ClaimState.NEW
        assert not await first.complete(key, "a", 60), "the lease belongs to another owner"
        assert await second.complete(key, "b", 60)

    @pytest.mark.parametrize("step", [60.0, -60.0])
    async def test_setting_the_wall_clock_neither_ends_nor_extends_a_claim(
        self, stores: tuple[Store, Store], key: str, monkeypatch: pytest.MonkeyPatch, step: float
    ) -> None:
        first, second = stores
        await first.begin(f"{key}long", "a", 30)
        await first.begin(f"{key}done", "a", 30)
        await first.complete(f"{key}done", "a", 30)
        await first.begin(f"{key}short", "a", 0.3)
        set_wall_clock(monkeypatch, step)
        assert (await second.begin(f"{key}long", "b", 30)).state is ClaimState.IN_PROGRESS
        assert (await second.begin(f"{key}done", "b", 30)).state is ClaimState.DONE
        await eventually(
            lambda: second.begin(f"{key}short", "b", 30),
            lambda claim: claim.state is ClaimState.NEW,
        )

    async def test_renewing_extends_the_lease(self, stores: tuple[Store, Store], key: str) -> None:
        first, second = stores
        await first.begin(key, "a", 0.5)
        await first.renew(key, "a", 30)
        await second.renew(key, "b", 0.01)
        claim = await second.begin(key, "b", 30)
        assert claim.state is ClaimState.IN_PROGRESS
        assert claim.remaining > 20

    async def test_a_completed_key_expires(self, stores: tuple[Store, Store], key: str) -> None:
        first, _ = stores
        await first.begin(key, "a", 30)
        await first.complete(key, "a", 0.3)
        states: list[ClaimState] = []

        async def look() -> None:
            states.append((await first.begin(key, "b", 30)).state)

        await look()
        assert states == [ClaimState.DONE]
        while states[-1] is ClaimState.DONE:
            await asyncio.sleep(0.02)
            await look()
        assert states[-1] is ClaimState.NEW

    async def test_only_one_of_many_concurrent_claims_is_new(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        claims = await asyncio.gather(
            *(stores[n % 2].begin(key, f"owner {n}", 30) for n in range(20))
        )
        states = [claim.state for claim in claims]
        assert states.count(ClaimState.NEW) == 1
        assert states.count(ClaimState.IN_PROGRESS) == 19

    async def test_keys_are_independent_and_may_contain_any_text(
        self, stores: tuple[Store, Store]
    ) -> None:
        first, second = stores
        odd = [random_name() + text for text in ("|a b", "|ü", "|'; --", "|" + "x" * 1000)]
        for key in odd:
            assert (await first.begin(key, "a", 30)).state is ClaimState.NEW
        for key in odd:
            assert (await second.begin(key, "b", 30)).state is ClaimState.IN_PROGRESS

    async def test_claims_are_made_and_settled_in_batches(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, second = stores
        keys = [f"{key}{number}" for number in range(600)]
        await second.begin(keys[0], "b", 30)
        await second.begin(keys[1], "b", 30)
        await second.complete(keys[1], "b", 60)
        await first.begin(keys[2], "a", 1)
        claims = await first.begin_many(keys, "a", 30)
        assert {name: claim.state for name, claim in claims.items()} == {
            keys[0]: ClaimState.IN_PROGRESS,
            keys[1]: ClaimState.DONE,
        }
        assert (await second.begin(keys[2], "b", 30)).remaining > 20
        await first.complete_many(keys[2:400], "a", 60)
        await first.abandon_many(keys[400:], "a")
        claims = await second.begin_many(keys, "b", 30)
        assert claims.keys() == set(keys[1:400])
        assert {claim.state for claim in claims.values()} == {ClaimState.DONE}
        assert (await first.begin(keys[500], "a", 30)).state is ClaimState.IN_PROGRESS
        assert await first.begin_many([], "a", 30) == {}
        await first.complete_many([], "a", 30)

    async def test_marks_are_counted_until_they_are_removed(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, second = stores
        assert [await first.mark(key, 30), await second.mark(key, 30)] == [1, 2]
        assert await first.mark(key + "2", 30) == 1
        await second.unmark(key)
        await second.unmark(key)
        assert await first.mark(key, 30) == 1
        counts = await asyncio.gather(*(stores[n % 2].mark(key, 30) for n in range(20)))
        assert sorted(counts) == list(range(2, 22))

    async def test_marks_expire(self, stores: tuple[Store, Store], key: str) -> None:
        first, _ = stores
        await first.mark(key, 30)
        assert await first.mark(key, 0.2) == 2
        await asyncio.sleep(0.25)
        assert await first.mark(key, 30) == 1

    async def test_marks_and_claims_on_one_key_are_independent(
        self, stores: tuple[Store, Store], key: str
    ) -> None:
        first, second = stores
        assert (await first.begin(key, "a", 30)).state is ClaimState.NEW
        assert await first.mark(key, 30) == 1
        assert (await second.begin(key, "b", 30)).state is ClaimState.IN_PROGRESS
        await second.unmark(key)
        assert await first.complete(key, "a", 30)
        assert await first.mark(key, 30) == 1
        assert (await second.begin(key, "b", 30)).state is ClaimState.DONE
