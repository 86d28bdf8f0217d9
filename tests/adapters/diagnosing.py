"""A diagnosis, by the names of its checks, and the clock of this machine for one."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType

import pytest

import anymq


async def diagnosis(url: str, **options: str) -> dict[str, anymq.Check]:
    """Return the checks of `url`; they end within two minutes."""
    async with asyncio.timeout(120):
        return {check.name: check async for check in anymq.diagnose(url, **options)}


def set_clock(monkeypatch: pytest.MonkeyPatch, module: ModuleType, ahead: float) -> None:
    """Set the clock that `module` reads, so that a server's is `ahead` seconds ahead of it."""

    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() - ahead

    monkeypatch.setattr(module, "time", Clock)
