"""CPU time and resident memory of a process during a job."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psutil

from .protocol import JobResult

SAMPLE_INTERVAL = 0.05
"""Seconds."""


class Usage:
    """Measures this process within its context; `share` returns the finished share of the job."""

    def __init__(self, share: Callable[[], float]) -> None:
        self._share = share
        self._process = psutil.Process()
        self._early = 0

    async def __aenter__(self) -> Self:
        gc.collect()
        gc.freeze()  # keeps the collector away from the prepared messages
        self._before = self._peak = self._rss()
        self._began = time.perf_counter()
        self._cpu = time.process_time()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seconds = time.perf_counter() - self._began
        self._cpu = time.process_time() - self._cpu
        gc.unfreeze()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._after = self._rss()
        self._peak = max(self._peak, self._after)

    def report(self, messages: int) -> JobResult:
        """Return the measured values as the result of a job of `messages` messages."""
        return JobResult(
            messages=messages,
            seconds=self._seconds,
            cpu=self._cpu,
            rss_before=self._before,
            rss_early=self._early or self._before,
            rss_peak=self._peak,
            rss_after=self._after,
        )

    async def _watch(self) -> None:
        while True:
            rss = self._rss()
            self._peak = max(self._peak, rss)
            if not self._early and self._share() >= 0.1:
                self._early = rss
            await asyncio.sleep(SAMPLE_INTERVAL)

    def _rss(self) -> int:
        return int(self._process.memory_info().rss)
