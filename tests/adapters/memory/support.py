"""Test bench of the memory adapter: one space for each test."""

from __future__ import annotations

from typing import Any

from anymq.driver import REAL
from anymq.testing.harness import random_name
from anymq.url import URL
from anymq_memory import MemoryDriver, MemoryOptions
from tests.adapters import support


class Bench(support.Bench[MemoryDriver]):
    """One space, and the drivers that a test opened on it."""

    def __init__(self) -> None:
        super().__init__(f"memory://{random_name()}", "orders")

    async def connect(self, url: URL, **options: Any) -> MemoryDriver:
        return await MemoryDriver.open(url, MemoryOptions(**options), timeout=10, clock=REAL)
