"""`Supervisor`: the process of `anymq run`, from its start to its exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from watchfiles import PythonFilter, awatch

from ..errors import ConfigurationError
from ..health.server import serving
from ..logs import logger
from ..tasks import supervise
from .logs import configure
from .metrics import metrics_of
from .report import WorkersHealth
from .settings import RunSettings
from .slot import RunFailed, Slot

log = logger("anymq.run")

DRAINED, FAILED, USAGE, CUT_SHORT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
"""The exit codes, see `anymq run --help`."""


class Supervisor:
    """Runs workers until a signal, their own end, or their failure."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._slots: list[Slot] = []
        self._code: int | None = None
        self._draining = False

    def run(self) -> int:
        """Run; return the exit code. Unless the log is JSON, raises what prevents that."""
        if sys.platform == "win32":
            raise ConfigurationError("anymq run needs a POSIX system; use App.run() here")
        with tempfile.TemporaryFile() as lock:
            configure(self._settings.log, worker=None, lock=lock.fileno())
            try:
                with asyncio.Runner() as runner:
                    return runner.run(self._run(lock.fileno()))
            except (RunFailed, ConfigurationError) as error:
                if self._settings.log.form == "text":
                    raise
                log.critical("%s", error)  # Every line of the log is JSON, the last one too.
                return error.code if isinstance(error, RunFailed) else USAGE

    # What the endpoint reports.

    async def health(self) -> WorkersHealth:
        """Return the state of every worker, within a second."""
        workers = await asyncio.gather(*(slot.health() for slot in self._slots))
        return WorkersHealth(draining=self._draining, workers=workers)

    async def metrics(self) -> str:
        """Return the metrics of every worker, within a second."""
        return metrics_of(await self.health())

    # Running.

    async def _run(self, lock: int) -> int:
        numbers = range(1, self._settings.workers + 1)
        self._slots = [Slot(number, self._settings, lock) for number in numbers]
        failed: RunFailed | None = None
        async with AsyncExitStack() as stack:
            if self._settings.health is not None:
                await stack.enter_async_context(serving(self, self._settings.health))
            stack.enter_context(self._signals())
            if self._settings.reload:
                await stack.enter_async_context(self._reloading())
            running = [asyncio.create_task(self._run_slot(slot)) for slot in self._slots]
            pending = set(running)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for error in (task.exception() for task in done):
                    if error is None:
                        continue
                    if not isinstance(error, RunFailed):
                        raise error
                    failed = failed or error
                    self._stop(self._settings.drain)
        if failed is not None and self._code is None:
            raise failed
        return self._exit_code()

    async def _run_slot(self, slot: Slot) -> None:
        """Run `slot`; the first one has to start before the others, so that one says the error."""
        first = self._slots[0]
        if slot is not first:
            await first.released.wait()
        await slot.run()

    def _exit_code(self) -> int:
        if self._code is not None:
            return self._code
        endings = [slot.ending for slot in self._slots if slot.ending is not None]
        if any(slot.killed for slot in self._slots) or not all(end.drained for end in endings):
            return FAILED
        if cut_short := sum(ending.cut_short for ending in endings):
            log.warning("%d handlers were cancelled; their messages come back", cut_short)
            return CUT_SHORT
        return DRAINED

    def _stop(self, seconds: float) -> None:
        self._draining = True
        for slot in self._slots:
            slot.stop(seconds)

    # Signals.

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        drains, ends = (signal.SIGTERM, signal.SIGHUP), (signal.SIGINT,)
        for number in drains:
            loop.add_signal_handler(number, self._on_terminate, number)
        for number in ends:
            loop.add_signal_handler(number, self._end, INTERRUPTED)
        try:
            yield
        finally:
            for number in (*drains, *ends):
                loop.remove_signal_handler(number)

    def _on_terminate(self, number: signal.Signals) -> None:
        if self._draining:
            self._end(TERMINATED)
            return
        log.info("%s: draining for up to %g s", number.name, self._settings.drain)
        self._stop(self._settings.drain)

    def _end(self, code: int) -> None:
        log.warning("ending at once")
        self._code = code
        self._stop(0)

    # Changes of files.

    @asynccontextmanager
    async def _reloading(self) -> AsyncIterator[None]:
        watching = supervise(self._watch(), name="anymq-watch")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _watch(self) -> None:
        """Start the workers anew after each change in the working directory."""
        wanted = PythonFilter(extra_extensions=(".toml",))
        async for changes in awatch(Path.cwd(), watch_filter=wanted):
            names = sorted({Path(name).name for _, name in changes})
            log.info("%s changed: starting the workers anew", ", ".join(names))
            for slot in self._slots:
                slot.reload()
