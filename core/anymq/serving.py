"""`Serving`: one run of an app, until something stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from .logs import logger

log = logger("anymq")


class Serving:
    """One call of `App.serve`, made by the task that serves."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._stop = asyncio.Event()
        self.drain_timeout: float | None = None
        """Seconds that handlers have, if not those of the app."""
        self.cut_short = False
        """Whether the task was cancelled in order to end at once."""

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop.is_set()

    def stop(self, drain_timeout: float | None = None) -> None:
        """Have it drain and return; with a `drain_timeout` of 0 it cancels the handlers."""
        if not self.stopping:
            self.drain_timeout = drain_timeout
        elif drain_timeout == 0 and not self.cut_short:
            self.drain_timeout, self.cut_short = drain_timeout, True
            self._task.cancel()
        self._stop.set()

    async def wait(self) -> None:
        """Return when it has been told to stop."""
        await self._stop.wait()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Stop at SIGINT or SIGTERM within this context, and at once at a second one."""
        loop = asyncio.get_running_loop()
        installed: list[signal.Signals] = []
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._on_signal)
                installed.append(number)
        except (NotImplementedError, RuntimeError, ValueError):
            log.debug("signals cannot be handled here; stop with App.stop()")
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self.stopping and not self.cut_short:
            log.warning("second signal received: stopping without waiting for handlers")
        self.stop(0 if self.stopping else None)
