"""`python -m benchmarks.speed.worker`: a process that runs the jobs it receives.

It reads one `Command` per line and runs through all rounds of one contestant, so no interpreter
start is measured. Producers and consumers have separate workers, except on a backend that only one
process can use.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from typing import Any, TextIO

from anymq import Broker, connect

from .contestant import BenchTopic, Contestant
from .contestants import contestant
from .event_loop import loop_factory
from .jobs import JOBS, JobControl
from .protocol import Command, Event, Job, JobResult

LONGEST_LINE = 64 * 1024 * 1024


class Worker:
    """The jobs of this process, and the contestants they share."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._contestants: dict[tuple[str, str, BenchTopic], Contestant] = {}
        self._go: dict[int, asyncio.Event] = {}
        self._stop: dict[int, asyncio.Event] = {}
        self._jobs: dict[int, asyncio.Task[None]] = {}
        self._brokers: list[Broker] = []

    def execute(self, command: Command) -> None:
        """Start a job, or signal a running one."""
        number = command.number
        match command.verb:
            case "begin":
                assert command.job is not None
                self._go[number], self._stop[number] = asyncio.Event(), asyncio.Event()
                self._jobs[number] = asyncio.create_task(self._run(number, command.job))
            case "go" | "stop" if number in self._jobs:
                self._go[number].set()
                if command.verb == "stop":
                    self._stop[number].set()
            case "reset":
                self._contestants.clear()
                self._close_brokers()
            case _:
                pass  # the job has already ended

    async def _run(self, number: int, job: Job) -> None:
        async def begin() -> None:
            self._send_event(Event(number=number, kind="ready"))
            await self._go[number].wait()

        def progress(handled: int) -> None:
            self._send_event(Event(number=number, kind="progress", handled=handled))

        control = JobControl(begin=begin, progress=progress, stop=self._stop[number])
        try:
            await self._keep_memory(job)
            done: JobResult = await JOBS[job.task](self._contestant(job), job, control)
            self._send_event(Event(number=number, kind="done", done=done))
        except Exception as error:
            traceback.print_exc()
            self._send_event(Event(number=number, kind="failed", error=_first(error)))
        finally:
            del self._go[number], self._stop[number], self._jobs[number]

    def _contestant(self, job: Job) -> Contestant:
        key = (job.backend, job.contestant, job.topic)
        if key not in self._contestants:
            self._contestants[key] = contestant(job.backend, job.contestant)(job.topic)
        return self._contestants[key]

    async def _keep_memory(self, job: Job) -> None:
        """Keep a memory backend alive between jobs, until the reset."""
        if job.backend == "memory" and not self._brokers:
            self._brokers.append(await connect(job.topic.url))

    def _close_brokers(self) -> None:
        while self._brokers:
            self._closing = asyncio.create_task(self._brokers.pop().aclose())

    def _send_event(self, event: Event) -> None:
        self._out.write(event.model_dump_json(exclude_defaults=True) + "\n")
        self._out.flush()


def _first(error: BaseException) -> str:
    """Return type and text of an exception; of a group, those of its first member."""
    while isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[Any] = error
        error = group.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def _main(out: TextIO) -> None:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = Worker(out)
    while line := await reader.readline():
        worker.execute(Command.model_validate_json(line))


def _private_output() -> TextIO:
    """Reserve standard output for events; output of libraries goes to the log."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def main() -> None:
    """Execute commands until standard input is closed."""
    out = _private_output()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(out))


if __name__ == "__main__":
    main()
