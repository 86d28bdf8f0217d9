"""The processes of a run: settings, main function, start and end.

Each writes its journal to `NAME.jsonl` in the folder of the run, and its log to `NAME.log`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from .journal import Journal


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings common to producers and consumers."""

    name: str
    folder: str
    url: str
    topic: str
    partitions: int | None = None


S = TypeVar("S", bound=Settings)


def start(kind: type[S], main: Callable[[S, Journal], Awaitable[None]]) -> None:
    """Run `main` with the settings of the command line."""
    settings = kind(**json.loads(sys.argv[1]))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    journal = Journal(Path(settings.folder) / f"{settings.name}.jsonl")

    async def run() -> None:
        watching = asyncio.create_task(_end_with_parent())
        await main(settings, journal)
        watching.cancel()

    asyncio.run(run())
    journal.note("ended")


async def _end_with_parent() -> None:
    """End this process within 1 s of the end of its parent."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(1.0)
    os._exit(1)


class Process:
    """A started producer or consumer."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process) -> None:
        self.settings = settings
        self._process = process

    @property
    def name(self) -> str:
        """Name, unique in the run; a replacement has a new one."""
        return self.settings.name

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.returncode is None

    @property
    def killed(self) -> bool:
        """Whether it was ended by SIGKILL."""
        return self._process.returncode == -signal.SIGKILL

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self._process.returncode not in (None, 0, -signal.SIGKILL)

    def __str__(self) -> str:
        return f"{self.name} (exit code {self._process.returncode})"

    def kill(self) -> None:
        """Send SIGKILL."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, unless the process has ended."""
        # Not `Process.send_signal`, which would reap an ended process unknown to asyncio.
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return whether the process has ended."""
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            return False
        return True


async def spawn(module: str, settings: Settings) -> Process:
    """Start `benchmarks.chaos.MODULE` with these settings."""
    with (Path(settings.folder) / f"{settings.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"benchmarks.chaos.{module}",
            json.dumps(asdict(settings)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
    return Process(settings, process)
