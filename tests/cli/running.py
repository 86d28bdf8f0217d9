"""`anymq run` as tests use it: a program, its journal, and the process that runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.cli.support import start

WITHIN = 120.0
"""Seconds for anything that should happen soon, on a loaded machine."""

PROGRAM = """
import asyncio
import os
from pathlib import Path

import anymq

HERE = Path(__file__).parent
app = anymq.App(name="rehearsal", version="1.0")


def note(*words):
    with open(HERE / "journal", "a") as journal:
        journal.write(" ".join(map(str, words)) + "\\n")


@app.subscriber(os.environ["TOPIC"], group="g", concurrency=4)
async def handle(body: str) -> None:
    note("begun", body, os.getpid())
    while not (HERE / "gate").exists():
        await asyncio.sleep(0.02)
    note("ended", body, os.getpid())
"""
"""Its handlers wait until there is a file `gate`."""


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    """Return what `condition` returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Run:
    """A running `anymq run program:app`, with an endpoint for probes."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str]) -> None:
        self.folder = folder
        self._log = folder / f"log-{time.monotonic_ns()}"
        self._arguments = arguments
        with self._log.open("wb") as log:
            self.process: subprocess.Popen[str] = start(
                "run",
                "program:app",
                "--health",
                "127.0.0.1:0",
                "--log-format",
                "json",
                *arguments,
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._workers: set[int] = set()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The complete lines of the log."""
        lines = self._log.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def messages(self) -> list[str]:
        """The messages of the log."""
        return [line["message"] for line in self.log]

    def address(self) -> str:
        """Return the address of the endpoint."""

        def found() -> str | None:
            assert self.process.poll() is None, self._log.read_text()
            lines = [text for text in self.messages if text.startswith("health at ")]
            return lines[0].removeprefix("health at ") if lines else None

        address: str = until(found)
        return address

    def get(self, path: str) -> tuple[int, str]:
        """Return the answer of the endpoint: status and body; status 0 if there is none."""
        try:
            with urllib.request.urlopen(self.address() + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, ""

    def report(self) -> dict[str, Any]:
        """Return the report of `/readyz`."""
        found: dict[str, Any] = json.loads(self.get("/readyz")[1])
        self._workers.update(one["pid"] for one in found["workers"] if one["pid"])
        return found

    def ready(self) -> list[int]:
        """Return the processes of the workers, once they are ready."""
        report = until(lambda: report if (report := self.report())["ready"] else None)
        return [one["pid"] for one in report["workers"]]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def code(self, within: float = WITHIN) -> int:
        """Return the exit code."""
        return self.process.wait(within)

    def close(self) -> None:
        """End what is left of it."""
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self._workers.update(child.pid for child in children)
            self.process.kill()
            self.process.wait()
        for pid in self._workers:
            if is_worker(pid):
                os.kill(pid, signal.SIGKILL)


def is_worker(pid: int) -> bool:
    """Whether a worker runs as process `pid`."""
    try:
        process = psutil.Process(pid)
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and "anymq.supervision.worker" in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


def journal(folder: Path, event: str) -> list[tuple[str, int]]:
    """Return what the handlers have noted of `event`: bodies and processes."""
    path = folder / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    split = [line.split(" ") for line in lines]
    return [(body, int(pid)) for name, body, pid in split if name == event]
