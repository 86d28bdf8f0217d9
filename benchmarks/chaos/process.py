"""The processes of a run: their settings, their main function, and how they are started and ended.

Each journals to `NAME.jsonl` in the run's folder, and what it logs is in `NAME.log` beside it.
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
    """What both kinds of process are told."""

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
        orphaned = asyncio.create_task(_outlive_nobody())
        await main(settings, journal)
        orphaned.cancel()

    asyncio.run(run())
    journal.note("ended")


async def _outlive_nobody() -> None:
    """End this process at once when the one that started it is gone."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells an orphan
        await asyncio.sleep(1.0)
    os._exit(1)


class Process:
    """A producer or consumer that was started."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process) -> None:
        self.settings = settings
        self._process = process

    @property
    def name(self) -> str:
        """Unique in its run: one that is started in the place of another has its own."""
        return self.settings.name

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL has ended it."""
        return self._process.returncode == -signal.SIGKILL

    @property
    def failed(self) -> bool:
        """Whether it ended by an error of its own."""
        return self._process.returncode not in (None, 0, -signal.SIGKILL)

    def __str__(self) -> str:
        return f"{self.name} (exit code {self._process.returncode})"

    def kill(self) -> None:
        """SIGKILL; its journal has all that it noted."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end."""
        # Not by its own method, which would reap one that has just ended, behind asyncio's back.
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def wait(self, timeout: float) -> bool:
        """Return whether it ended within `timeout` seconds."""
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
