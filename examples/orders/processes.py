"""The five services, a process each, started again when they die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from .run import Run
from .services import SERVICES

GRACE = 15.0
"""Seconds that a service may take to drain."""

LIFETIME = 3.0
"""Seconds; who dies sooner dies quickly, and is started again only after a pause."""

QUICK_DEATHS = 10
LONGEST_PAUSE = 2.0


class ServiceFailed(Exception):
    """A service cannot be kept alive."""


class Processes:
    """Supervises the services; enter it to start them. Leaving ends them all.

    They are in sessions of their own, so that a Ctrl-C reaches them through their supervisor only,
    and each holds a pipe by which it notices that its supervisor is gone. `note` is told of deaths.
    """

    def __init__(self, run: Run, note: Callable[[str], None]) -> None:
        self._run = run
        self._note = note
        self._processes: dict[str, Process] = {}
        self._tasks = asyncio.TaskGroup()
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._keepers = [self._tasks.create_task(self._keep(name)) for name in SERVICES]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await self._tasks.__aexit__(kind, error, traceback)

    def kill(self, name: str) -> None:
        """End the service `name` as a crash would."""
        with suppress(ProcessLookupError):
            self._processes[name].kill()

    async def _keep(self, name: str) -> None:
        """Keep the service `name` running until cancelled."""
        loop = asyncio.get_running_loop()
        quick = 0
        while True:
            started = loop.time()
            process = self._processes[name] = await self._start(name)
            try:
                status = await process.wait()
            finally:
                await _end(process)
            quick = quick + 1 if loop.time() - started < LIFETIME else 0
            if quick == QUICK_DEATHS:
                raise ServiceFailed(f"{name} keeps dying, the last time of {_cause(status)}")
            self._note(
                f"{name} (process {process.pid}) died of {_cause(status)}, starting it again"
            )
            await asyncio.sleep(min(0.1 * 2**quick, LONGEST_PAUSE))

    async def _start(self, name: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"{__package__}.{name}", "--supervised"),
            *("--run", self._run.id, "--folder", str(self._run.folder)),
            # In the environment: arguments can be seen by others, and it may hold a password.
            env=os.environ | {"ANYMQ_URL": self._run.url},
            stdin=PIPE,
            stdout=sys.stderr,
            start_new_session=True,
        )


async def _end(process: Process) -> None:
    """Let the process drain, or kill it."""
    with suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.create_task(process.wait())
    await asyncio.wait((ended,), timeout=GRACE)
    if process.returncode is None:
        process.kill()
    await ended


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
