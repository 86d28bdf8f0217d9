"""A topic of its own for each test, on the server that all share or on one that may be broken."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from anymq_rabbitmq import RabbitMQDriver
from brokers import Server, server
from tests.adapters.rabbitmq.support import Bench, bench_on


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    if url := os.environ.get("ANYMQ_TEST_RABBITMQ_URL"):
        return url
    main = server("rabbitmq")
    main.up()
    return main.url


@pytest.fixture
def faulty() -> Iterator[Server]:
    """A server that this test may kill and pause."""
    made = server("rabbitmq", instance="faults")
    made.up()
    yield made
    made.up()


@pytest_asyncio.fixture
async def bench(rabbitmq_url: str) -> AsyncIterator[Bench]:
    async with bench_on(rabbitmq_url) as made:
        yield made


@pytest_asyncio.fixture
async def driver(bench: Bench) -> RabbitMQDriver:
    return await bench.open()
