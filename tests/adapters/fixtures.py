"""Makes the fixtures of the adapters that need a server: `server_url = url_of("kafka")`, …"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from brokers import Server, server
from tests.adapters.support import Bench

B = TypeVar("B", bound=Bench[Any])


def url_of(backend: str) -> Any:
    """Where the server is that all tests share: `server_url`."""

    @pytest.fixture(scope="session")
    def url() -> str:
        if given := os.environ.get(f"ANYMQ_TEST_{backend.upper()}_URL"):
            return given
        main = server(backend)
        main.up()
        return main.url

    return url


def faulty_of(backend: str) -> Any:
    """A server that a test may kill and pause: `faulty`."""

    @pytest.fixture
    def faulty() -> Iterator[Server]:
        made = server(backend, instance="faults")
        made.up()
        yield made
        made.up()

    return faulty


def bench_of(make: Callable[[str], B]) -> Any:
    """A topic of its own for each test, on the server that all share: `bench`."""

    @pytest_asyncio.fixture
    async def bench(server_url: str) -> AsyncIterator[B]:
        async with make(server_url) as made:
            yield made

    return bench
