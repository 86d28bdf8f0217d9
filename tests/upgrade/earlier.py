"""The earlier version of anymq, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymq.testing.tools import Worker

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Earlier:
    """The unpacked wheel of the earlier version."""

    folder: Path

    @asynccontextmanager
    async def run(self, task: str, **arguments: Any) -> AsyncIterator[Worker]:
        """Run a task of `application.py`; its process is killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(FOLDER / "application.py"),
            task,
            json.dumps(arguments),
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        worker = Worker(process)
        try:
            started = await worker.hear("started")
            assert Path(started["anymq"]).is_relative_to(self.folder)
            yield worker
        finally:
            await worker.kill()


async def stop(worker: Worker) -> None:
    """Let the application close as it should, and wait until it has."""
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    async with asyncio.timeout(60):
        status = await worker.process.wait()
    assert status == 0, f"the earlier version failed while closing: {status}"
