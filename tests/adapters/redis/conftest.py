"""A topic of its own for each test, on the server that all share or on one that may be broken."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from anymq_redis import RedisDriver
from brokers import Server, server
from tests.adapters.redis.support import Bench, bench_on


@pytest.fixture(scope="session")
def redis_url() -> str:
    if url := os.environ.get("ANYMQ_TEST_REDIS_URL"):
        return url
    main = server("redis")
    main.up()
    return main.url


@pytest.fixture
def faulty() -> Iterator[Server]:
    """A server that this test may kill and pause."""
    made = server("redis", instance="faults")
    made.up()
    yield made
    made.up()


@pytest_asyncio.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with bench_on(redis_url) as made:
        yield made


@pytest_asyncio.fixture
async def driver(bench: Bench) -> RedisDriver:
    return await bench.open()
