"""A memory driver that counts its calls: `counting://NAME`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import anymq
from anymq.driver import (
    Listener,
    Nack,
    Outcome,
    Received,
    Record,
    Rejected,
    Source,
    StoreRecords,
    SubscribeSpec,
)
from anymq_memory import MemoryDriver

SCHEME = "counting"


class CountingDriver(MemoryDriver):
    """Counts calls, and keeps the published records."""

    calls: ClassVar[Counter[str]] = Counter()
    records: ClassVar[list[Record]] = []

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        self.calls["publish"] += 1
        self.records.extend(records)
        await asyncio.sleep(0)  # like every real driver, it lets other tasks run meanwhile
        return await super().publish(records)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Source:
        source = await super().subscribe(spec, listener)
        assert isinstance(source, Source)
        return CountingSource(source, self.calls)


class CountingSource(Source):
    """Counts calls; of `receive`, only those that return records."""

    def __init__(self, source: Source, calls: Counter[str]) -> None:
        self._source = source
        self._calls = calls

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        found = await self._source.receive(limit, wait)
        self._calls["receive"] += bool(found)
        return found

    async def ack(self, records: Sequence[Received]) -> None:
        self._calls["ack"] += 1
        await self._source.ack(records)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        self._calls["nack"] += 1
        await self._source.nack(nacks)

    async def release(self, nacks: Sequence[Nack]) -> None:
        self._calls["release"] += 1
        await self._source.release(nacks)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        self._calls["reject"] += 1
        await self._source.reject(rejected, store)

    async def extend(self, records: Sequence[Received]) -> None:
        self._calls["extend"] += 1
        await self._source.extend(records)

    async def aclose(self) -> None:
        await self._source.aclose()


def serve() -> None:
    """Register `counting://` and reset all counts."""
    anymq.register(SCHEME, f"{__name__}:{CountingDriver.__name__}")
    CountingDriver.calls.clear()
    CountingDriver.records.clear()
