"""`Refreshed`: a value that is fetched again when it is asked for, without making callers wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from ..tasks import supervise

T = TypeVar("T")


class Refreshed(Generic[T]):
    """The last value of `fetch`, at most `max_age` seconds old where `fetch` is quick.

    One fetch runs at a time, in a task that callers share. A caller waits for it for `wait` seconds
    at most, then gets the value before. `fetch` must not raise.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[T]], initial: T, *, max_age: float, wait: float
    ) -> None:
        self.value = initial
        self._fetch = fetch
        self._max_age = max_age
        self._wait = wait
        self._fetched: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.began = 0.0

    @property
    def waiting(self) -> float:
        """The seconds for which the present fetch has been running; 0 if none runs."""
        if self._task is None or self._task.done():
            return 0.0
        return asyncio.get_running_loop().time() - self.began

    async def get(self) -> T:
        """Return the value, after waiting for a new one if it is too old."""
        now = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            if self._fetched is not None and now - self._fetched < self._max_age:
                return self.value
            self.began = now
            # A context of its own, so that the fetch does not count as part of a handler.
            self._task = supervise(self._run(), name="anymq-health", context=Context())
        await asyncio.wait((self._task,), timeout=self._wait)
        return self.value

    async def _run(self) -> None:
        self.value = await self._fetch()
        self._fetched = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """End the present fetch."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
