"""A diagnosis, by the names of its checks."""

from __future__ import annotations

import asyncio

import anymq


async def diagnosis(url: str, **options: str) -> dict[str, anymq.Check]:
    """Return the checks of `url`; they end within two minutes."""
    async with asyncio.timeout(120):
        return {check.name: check async for check in anymq.diagnose(url, **options)}
