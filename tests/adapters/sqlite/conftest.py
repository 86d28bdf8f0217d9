"""A file for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from anymq_sqlite import SqliteDriver
from tests.adapters.sqlite.support import Bench, bench


@pytest_asyncio.fixture(name="bench")
async def bench_fixture(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path / "broker.db") as made:
        yield made


@pytest_asyncio.fixture
async def driver(bench: Bench) -> SqliteDriver:
    return await bench.open()
