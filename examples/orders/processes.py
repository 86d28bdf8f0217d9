"""A supervisor that runs each service as a process and restarts it when it dies."""

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
"""Seconds allowed for draining a service."""

LIFETIME = 3.0
"""Seconds; restarts of a service that dies sooner are delayed increasingly."""

QUICK_DEATHS = 10
"""Consecutive deaths within `LIFETIME` that end the run."""
LONGEST_PAUSE = 2.0
"""Seconds."""


class ServiceFailed(Exception):
    """A service died repeatedly and is not restarted."""


class Processes:
    """Starts the services on entering the context, restarts them, and stops them on exit.

    Each runs in its own session, so Ctrl-C reaches only the supervisor, and ends when the
    supervisor closes its standard input. `note` is called with each death.
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
        """SIGKILL the service `name`."""
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
                raise ServiceFailed(
                    f"{name} died {QUICK_DEATHS} times in succession, last of {_cause(status)}"
                )
            self._note(f"{name} (process {process.pid}) died of {_cause(status)}; restarting")
            await asyncio.sleep(min(0.1 * 2**quick, LONGEST_PAUSE))

    async def _start(self, name: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"{__package__}.{name}", "--supervised"),
            *("--run", self._run.id, "--folder", str(self._run.folder)),
            # In the environment, because arguments are visible and the URL may contain a password.
            env=os.environ | {"ANYMQ_URL": self._run.url},
            stdin=PIPE,
            stdout=sys.stderr,
            start_new_session=True,
        )


async def _end(process: Process) -> None:
    """Let the process drain, or kill it after `GRACE` seconds."""
    with suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.create_task(process.wait())
    await asyncio.wait((ended,), timeout=GRACE)
    if process.returncode is None:
        process.kill()
    await ended


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
