"""`paced`: work in chunks, at most so many items each second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from math import isfinite
from typing import TypeVar

from ..driver.clock import Clock
from ..errors import ConfigurationError

T = TypeVar("T")

CHUNKS_PER_SECOND = 10
"""The most chunks in a second, where a rate allows more items."""


async def paced(
    items: Sequence[T], clock: Clock, *, rate: float | None, largest: int
) -> AsyncIterator[Sequence[T]]:
    """Yield `items` in chunks of at most `largest`; at most `rate` items a second, if given.

    What a slow caller misses is not made up for. Raises `ConfigurationError` if the rate is not
    positive.
    """
    if rate is not None and not (isfinite(rate) and rate > 0):
        raise ConfigurationError(f"a rate is a positive number for each second, not {rate!r}")
    size = largest if rate is None else max(1, min(largest, int(rate / CHUNKS_PER_SECOND)))
    due = clock.monotonic()
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        if rate is not None:
            await clock.sleep(due - clock.monotonic())
            due = max(due, clock.monotonic()) + len(chunk) / rate
        yield chunk
