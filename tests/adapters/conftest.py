"""A driver on the bench of the test, whatever the backend."""

from __future__ import annotations

from typing import Any

import pytest_asyncio

from anymq.driver import Driver
from tests.adapters.support import Bench


@pytest_asyncio.fixture
async def driver(bench: Bench[Any]) -> Driver:
    opened: Driver = await bench.open()
    return opened
