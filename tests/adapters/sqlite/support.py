"""Test bench of the SQLite adapter: one file for each test, and samples of one topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anymq.driver import REAL
from anymq.url import URL
from anymq_sqlite import SqliteDriver, SqliteOptions
from tests.adapters import support

TOPIC = "orders"

_samples = support.Samples(TOPIC)
topic = _samples.topic
spec = _samples.spec
record = _samples.record
records = _samples.records
nack = _samples.nack
rejected = _samples.rejected


class Bench(support.Bench[SqliteDriver]):
    """One file, and the drivers that a test opened on it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}", TOPIC)
        self.path = path

    async def connect(self, url: URL, **options: Any) -> SqliteDriver:
        return await SqliteDriver.open(url, SqliteOptions(**options), timeout=10, clock=REAL)
