"""A topic of its own for each test, on the server that all share or on one that may be broken."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from anymq_kafka import KafkaDriver
from brokers import Server, server
from tests.adapters.kafka.support import Bench, bench_on


@pytest.fixture(scope="session")
def kafka_url() -> str:
    if url := os.environ.get("ANYMQ_TEST_KAFKA_URL"):
        return url
    main = server("kafka")
    main.up()
    return main.url


@pytest.fixture
def faulty() -> Iterator[Server]:
    """A server that this test may kill and pause."""
    made = server("kafka", instance="faults")
    made.up()
    yield made
    made.up()


@pytest_asyncio.fixture
async def bench(kafka_url: str) -> AsyncIterator[Bench]:
    async with bench_on(kafka_url) as made:
        yield made


@pytest_asyncio.fixture
async def driver(bench: Bench) -> KafkaDriver:
    return await bench.open()
