"""Worker processes as the run controls them: start, submit jobs, stop."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .fork_server import ForkedWorker, ForkServer
from .protocol import Command, Event, Job, JobResult
from .worker import LONGEST_LINE

ROOT = Path(__file__).parents[2]
JOB_TIMEOUT = 60.0
"""Seconds."""
CLOSE_TIMEOUT = 5.0
"""Seconds."""


class JobFailed(Exception):
    """A job raised an exception or timed out, or its worker died."""


class JobHandle:
    """A job submitted to a worker, with its progress and result."""

    def __init__(self, worker: WorkerProcess, number: int) -> None:
        self._worker = worker
        self._number = number
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        self.handled = 0

    def go(self) -> None:
        """Start the timed part of the job."""
        self._worker.send(Command(number=self._number, verb="go"))

    def stop(self) -> None:
        """End the job; the worker then reports its result."""
        self._worker.send(Command(number=self._number, verb="stop"))

    def on_event(self, event: Event) -> None:
        """Apply an event sent by the worker."""
        if event.kind == "progress":
            self.handled = event.handled
        elif event.kind == "ready" and not self.ready.done():
            self.ready.set_result(None)
        elif event.kind == "done" and event.done is not None:
            if not self.ready.done():
                self.ready.set_result(None)
            self.done.set_result(event.done)
        elif event.kind == "failed":
            self.fail(event.error)

    def fail(self, why: str) -> None:
        """Fail both futures with `JobFailed`."""
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(JobFailed(why))
                future.exception()  # marked as retrieved: a caller may await only the other future


class WorkerProcess:
    """One worker process, which writes its log to `NAME.log` in `folder`.

    `wrapper` is a command line that runs the worker, such as a profiler's. With a fork server, the
    process is forked from it; otherwise it is started on the interpreter `python`.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        wrapper: Sequence[str] = (),
        fork_server: ForkServer | None = None,
        *,
        python: str = sys.executable,
    ) -> None:
        self.name = name
        self._fork_server = fork_server
        self._log = folder / f"{name}.log"
        self._command = [*wrapper, python, "-m", "benchmarks.speed.worker"]
        self._numbers = itertools.count()
        self._jobs: dict[int, JobHandle] = {}
        self._process: asyncio.subprocess.Process | ForkedWorker | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process unless it is running."""
        if self._process is not None and self._process.returncode is None:
            return
        with self._log.open("ab") as log:
            if self._fork_server is not None:
                self._process = await self._fork_server.fork(log.fileno())
            else:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    limit=LONGEST_LINE,
                    cwd=ROOT,
                    start_new_session=True,
                )
        self._reading = asyncio.create_task(self._read(self._process))

    async def submit(self, job: Job) -> JobHandle:
        """Start the process if necessary, and submit `job` without waiting for it."""
        await self.start()
        number = next(self._numbers)
        handle = self._jobs[number] = JobHandle(self, number)
        self.send(Command(number=number, verb="begin", job=job))
        return handle

    async def run(self, job: Job, timeout: float = JOB_TIMEOUT) -> JobResult:
        """Run `job` to its end; raise `JobFailed` and kill the worker after `timeout` seconds."""
        handle = await self.submit(job)
        handle.go()
        try:
            async with asyncio.timeout(timeout):
                return await handle.done
        except TimeoutError:
            await self.kill()
            raise JobFailed(f"{job.task} took more than {timeout:g} s") from None

    def reset(self) -> None:
        """Make the worker discard the state of earlier jobs."""
        if self._process is not None:
            self.send(Command(number=0, verb="reset"))

    def send(self, command: Command) -> None:
        """Write one command; do nothing if the worker has died."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(command.model_dump_json(exclude_none=True).encode() + b"\n")

    async def aclose(self, grace: float = CLOSE_TIMEOUT) -> None:
        """Close the worker's input, wait up to `grace` seconds for its end, then kill it."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill()

    async def kill(self) -> None:
        """Kill the process; the next job starts another."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, process: asyncio.subprocess.Process | ForkedWorker) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if not line.startswith(b"{"):
                continue  # printed by the wrapper
            event = Event.model_validate_json(line)
            handle = self._jobs[event.number]
            handle.on_event(event)
            if event.kind in ("done", "failed"):
                del self._jobs[event.number]
        for handle in self._jobs.values():
            handle.fail(f"{self.name} died; see {self._log}")
        self._jobs.clear()
