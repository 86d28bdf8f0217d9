"""The idempotency store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from anymq.driver import ClaimState
from anymq.errors import InvalidURL
from anymq.url import URL
from anymq_sqlite import SqliteDriver, SqliteStore
from tests.adapters.sqlite.support import Bench


@pytest.fixture
def url(tmp_path: Path) -> URL:
    return URL.parse(f"sqlite:///{tmp_path}/seen.db")


@pytest_asyncio.fixture
async def store(url: URL) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(url)
    yield opened
    await opened.aclose()


async def rows(store: SqliteStore) -> int:
    count: int = await store.database.read(
        lambda db: db.execute("SELECT count(*) FROM claims").fetchone()[0]
    )
    return count


async def test_new_then_in_progress_then_done(store: SqliteStore, url: URL) -> None:
    assert (await store.begin("k", "me", 10)).state is ClaimState.NEW
    assert (await store.begin("k", "me", 10)).state is ClaimState.NEW
    other = await SqliteStore.open(url)
    claim = await other.begin("k", "you", 10)
    assert claim.state is ClaimState.IN_PROGRESS
    assert 9 < claim.remaining <= 10
    assert not await other.complete("k", "you", 60)
    await other.abandon("k", "you")
    assert await store.complete("k", "me", 60)
    assert not await store.complete("k", "me", 60)
    assert (await other.begin("k", "you", 10)).state is ClaimState.DONE
    assert (await store.begin("k", "me", 10)).state is ClaimState.DONE
    await store.abandon("k", "me")
    assert (await store.begin("k", "me", 10)).state is ClaimState.DONE
    await other.aclose()


async def test_abandoned_is_new(store: SqliteStore) -> None:
    await store.begin("k", "me", 10)
    await store.abandon("k", "me")
    assert (await store.begin("k", "you", 10)).state is ClaimState.NEW


async def test_a_lease_runs_out(store: SqliteStore) -> None:
    begin = time.time()
    await store.begin("k", "me", 0.1)
    while (await store.begin("k", "you", 10)).state is not ClaimState.NEW:
        assert time.time() - begin < 5
    assert time.time() - begin >= 0.1
    await store.renew("k", "me", 60)
    assert not await store.complete("k", "me", 60)
    assert await store.complete("k", "you", 60)


async def test_a_renewed_lease_does_not(store: SqliteStore) -> None:
    await store.begin("k", "me", 0.05)
    await store.renew("k", "me", 60)
    claim = await store.begin("k", "you", 10)
    assert claim.state is ClaimState.IN_PROGRESS
    assert claim.remaining > 50


async def test_done_is_forgotten_after_its_time(store: SqliteStore) -> None:
    await store.begin("k", "me", 10)
    await store.complete("k", "me", 0.05)
    deadline = time.time() + 5
    while (await store.begin("k", "me", 10)).state is ClaimState.DONE:
        assert time.time() < deadline


async def test_only_one_of_many_wins(store: SqliteStore, url: URL) -> None:
    other = await SqliteStore.open(url)
    for number in range(20):
        key = f"k{number}"
        claims = await asyncio.gather(
            *(one.begin(key, f"{id(one)}{n}", 10) for one in (store, other) for n in range(5))
        )
        assert sum(claim.state is ClaimState.NEW for claim in claims) == 1
    await other.aclose()


async def test_expired_keys_are_deleted(store: SqliteStore) -> None:
    for number in range(20):
        await store.begin(f"old{number}", "me", 0.0)
    await store.begin("alive", "me", 60)
    for number in range(20):
        await store.begin(f"new{number}", "me", 60)
    assert await rows(store) == 21


async def test_it_survives_a_restart(url: URL) -> None:
    store = await SqliteStore.open(url)
    await store.begin("k", "me", 10)
    await store.complete("k", "me", 60)
    await store.aclose()
    await store.aclose()
    store = await SqliteStore.open(url)
    assert (await store.begin("k", "me", 10)).state is ClaimState.DONE
    await store.aclose()


async def test_it_may_share_the_brokers_file(bench: Bench, driver: SqliteDriver) -> None:
    store = await SqliteStore.open(URL.parse(bench.url))
    assert (await store.begin("k", "me", 10)).state is ClaimState.NEW
    await driver.ping()
    await store.aclose()


async def test_options_are_checked(url: URL) -> None:
    with pytest.raises(InvalidURL, match="synchronous"):
        await SqliteStore.open(URL.parse(f"{url}?durable=yes"))
    store = await SqliteStore.open(URL.parse(f"{url}?synchronous=NORMAL"))
    level = await store.database.read(lambda db: db.execute("PRAGMA synchronous").fetchone())
    assert level == (1,)
    await store.aclose()
