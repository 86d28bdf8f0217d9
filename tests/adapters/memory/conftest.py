"""A space for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.adapters.memory.support import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as made:
        yield made
