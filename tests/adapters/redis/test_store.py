"""The idempotency store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError, NoScriptError

from anymq.driver import Claim, ClaimState
from anymq.errors import InvalidURL
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_redis import RedisDriver, RedisStore
from tests.adapters.redis.support import Bench

pytestmark = pytest.mark.redis


@pytest_asyncio.fixture
async def store(server_url: str) -> AsyncIterator[RedisStore]:
    made = await RedisStore.open(URL.parse(server_url))
    yield made
    await made.aclose()
    await made.aclose()


@pytest.fixture
def key() -> str:
    return random_name("key") + "/ naïve"


async def test_the_three_states(store: RedisStore, key: str) -> None:
    assert await store.begin(key, "a", 30) == Claim(ClaimState.NEW)
    assert await store.begin(key, "a", 30) == Claim(ClaimState.NEW)
    other = await store.begin(key, "b", 30)
    assert other.state is ClaimState.IN_PROGRESS
    assert 29 < other.remaining <= 30
    assert not await store.complete(key, "b", 60)
    assert await store.complete(key, "a", 60)
    assert await store.begin(key, "a", 30) == Claim(ClaimState.DONE)
    assert await store.begin(key, "b", 30) == Claim(ClaimState.DONE)
    assert not await store.complete(key, "a", 60)


async def test_an_abandoned_key_is_new(store: RedisStore, key: str) -> None:
    await store.begin(key, "a", 30)
    await store.abandon(key, "b")
    assert (await store.begin(key, "b", 30)).state is ClaimState.IN_PROGRESS
    await store.abandon(key, "a")
    assert await store.begin(key, "b", 30) == Claim(ClaimState.NEW)
    await store.complete(key, "b", 30)
    await store.abandon(key, "b")
    assert await store.begin(key, "b", 30) == Claim(ClaimState.DONE)


async def test_a_lease_ends_unless_it_is_renewed(store: RedisStore, key: str) -> None:
    await store.begin(key, "a", 0.4)
    for _ in range(4):
        await asyncio.sleep(0.2)
        await store.renew(key, "a", 0.4)
    await store.renew(key, "b", 60)
    claim = await store.begin(key, "b", 30)
    assert claim.state is ClaimState.IN_PROGRESS
    await asyncio.sleep(claim.remaining + 0.05)
    assert await store.begin(key, "b", 30) == Claim(ClaimState.NEW)
    assert not await store.complete(key, "a", 30)


async def test_completed_keys_are_forgotten_after_their_time(
    store: RedisStore, bench: Bench, driver: RedisDriver, key: str
) -> None:
    await store.begin(key, "a", 30)
    await store.complete(key, "a", 0.1)
    assert await driver.native.keys(f"anymq:seen:{key}")
    await asyncio.sleep(0.15)
    assert await store.begin(key, "b", 30) == Claim(ClaimState.NEW)
    await store.abandon(key, "b")
    assert not await driver.native.keys(f"anymq:seen:{key}")


async def test_one_of_many_wins(server_url: str, store: RedisStore, key: str) -> None:
    other = await RedisStore.open(URL.parse(server_url))
    claims = await asyncio.gather(
        *((store, other)[n % 2].begin(key, f"owner-{n}", 30) for n in range(40))
    )
    assert [claim.state for claim in claims].count(ClaimState.NEW) == 1
    await other.aclose()


async def test_a_prefix_of_its_own(server_url: str, store: RedisStore, key: str) -> None:
    other = await RedisStore.open(URL.parse(f"{server_url}?prefix=other:"))
    await store.begin(key, "a", 30)
    assert await other.begin(key, "b", 30) == Claim(ClaimState.NEW)
    await other.aclose()


async def test_an_owner_cannot_pass_for_done(store: RedisStore, key: str) -> None:
    await store.begin(key, "=", 30)
    assert (await store.begin(key, "b", 30)).state is ClaimState.IN_PROGRESS
    await store.begin(f"{key}2", "", 30)
    assert (await store.begin(f"{key}2", "b", 30)).state is ClaimState.IN_PROGRESS


async def test_unknown_options_are_refused() -> None:
    with pytest.raises(InvalidURL, match="prefix"):
        await RedisStore.open(URL.parse("redis://127.0.0.1:1/0?prefixx=x"))


async def test_concurrent_calls_share_exchanges(
    store: RedisStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = 0
    run = store._commands.run

    async def counted(*commands: bytes) -> list[Any]:
        nonlocal exchanges
        exchanges += 1
        return await run(*commands)

    await store.begin(key, "first", 30)
    monkeypatch.setattr(store._commands, "run", counted)
    claims = await asyncio.gather(*(store.begin(f"{key}{n % 600}", "a", 30) for n in range(1200)))
    assert claims == [Claim(ClaimState.NEW)] * 1200
    assert exchanges <= 6  # The second claim of a key takes a script.
    late = asyncio.create_task(store.begin(f"{key}0", "b", 30))
    await asyncio.sleep(0)
    late.cancel()
    assert (await store.begin(f"{key}1", "b", 30)).state is ClaimState.IN_PROGRESS


async def test_a_server_that_has_lost_its_scripts_is_given_them_in_one_exchange(
    store: RedisStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges: list[int] = []
    run = store._commands.run

    async def lost_at_first(*commands: bytes) -> list[Any]:
        exchanges.append(len(commands))
        if len(exchanges) == 1:
            return [NoScriptError("No matching script.")] * len(commands)
        return await run(*commands)

    monkeypatch.setattr(store._commands, "run", lost_at_first)
    marks = await asyncio.gather(*(store.complete(f"{key}{n}", "a", 30) for n in range(50)))
    assert marks == [False] * 50
    assert exchanges == [50, 50]


async def test_closing_answers_everyone(server_url: str, key: str) -> None:
    store = await RedisStore.open(URL.parse(server_url))
    asking = [asyncio.create_task(store.begin(f"{key}{n}", "a", 30)) for n in range(700)]
    await asyncio.sleep(0)
    await store.aclose()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, Claim | ConnectionError) for answer in answers)
    assert any(isinstance(answer, ConnectionError) for answer in answers)
