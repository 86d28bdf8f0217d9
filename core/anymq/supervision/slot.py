"""`Slot`: the place of one worker, which is filled again when the worker has died."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from ..errors import AnymqError
from ..health.refreshed import Refreshed
from ..logs import logger
from ..tasks import supervise
from .process import Answer, Ending, WorkerProcess
from .report import SILENT_AFTER, WorkerHealth
from .settings import RunSettings

log = logger("anymq.run")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until another worker is started; doubled with each one that dies soon."""
STABLE = 60.0
"""Seconds after which a worker that dies no longer counts as dying soon."""
MOST_DEATHS = 5
"""Workers in a row that may die soon."""
STOP_GRACE = 10.0
"""Seconds beside its drain after which a worker is killed."""
END_WITHIN = 3.0
"""Seconds that a worker has to end at once."""
ANSWER_AGE, ANSWER_WAIT = 0.5, 0.6
"""Seconds for which a worker's report is believed, and for which a probe waits for another."""

SlotState = Literal["starting", "running", "waiting", "ended"]


class RunFailed(AnymqError):
    """Raised if workers cannot be kept running; `code` is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Slot:
    """Keeps worker `number` running until it is told to stop, or the app stops by itself."""

    def __init__(self, number: int, settings: RunSettings, lock: int) -> None:
        self.number = number
        self.state: SlotState = "starting"
        self.started = asyncio.Event()
        """Set once a worker has started."""
        self.released = asyncio.Event()
        """Set once a worker has started, or none will."""
        self.ending: Ending | None = None
        """How the last worker has ended."""
        self.killed = False
        """Whether the last worker did not stop in time."""
        self._settings = settings
        self._spec = settings.for_worker(number, lock)
        self._process: WorkerProcess | None = None
        self._reports: Refreshed[Answer | None] | None = None
        self._stopping = False
        self._reloading = False
        self._wake = asyncio.Event()
        self._restarts = 0
        self._deaths = 0
        self._killers: set[asyncio.TimerHandle] = set()

    # Running.

    async def run(self) -> None:
        """Keep a worker running; raises `RunFailed` if that is pointless."""
        try:
            while not self._stopping:
                ending = await self._run_one()
                if self._stopping or (ending.drained and not ending.asked):
                    return
                await self._decide(ending)
                self._restarts += 1
        finally:
            self.state = "ended"
            self.released.set()

    async def _run_one(self) -> Ending:
        self.state = "starting"
        self.killed = self._reloading = False
        self._wake.clear()
        process = self._process = await WorkerProcess.start(self._spec)
        self._reports = Refreshed(process.ask, None, max_age=ANSWER_AGE, wait=ANSWER_WAIT)
        announcing = supervise(self._announce(process), name="start of a worker")
        try:
            if self._stopping:
                process.stop(0)
            ending = self.ending = await process.wait()
        finally:
            announcing.cancel()
            self._process = None
            await self._reports.aclose()
            self._reports = None
            for timer in self._killers:
                timer.cancel()
            self._killers.clear()
        return ending

    async def _announce(self, process: WorkerProcess) -> None:
        await process.started.wait()
        self.state = "running"
        self.started.set()
        self.released.set()
        log.info("worker %d runs as process %d", self.number, process.pid)
        if process.backend == "memory" and self._settings.workers > 1 and self.number == 1:
            log.warning("memory:// is not shared: each worker has messages of its own")

    async def _decide(self, ending: Ending) -> None:
        """Wait until another worker may start; raises `RunFailed` if none should."""
        if self._reloading or ending.drained:
            self._deaths = 0
            return
        failure = ending.failure
        if failure is not None and self._settings.reload:
            log.error("worker %d %s; waiting for a change", self.number, ending.how)
            self.state = "waiting"
            await self._wake.wait()
            return
        if failure is not None and self.number == 1 and not self.started.is_set():
            raise RunFailed(failure.text, 2 if failure.kind == "usage" else 1)
        self._deaths = self._deaths + 1 if ending.seconds < STABLE else 1
        unreachable = failure is not None and failure.kind == "transient"
        if self._deaths >= MOST_DEATHS and not unreachable:
            raise RunFailed(
                f"worker {self.number} {ending.how}: {self._deaths} in a row have ended within "
                f"{STABLE:g} s; giving up",
                1,
            )
        pause = min(FIRST_PAUSE * 2.0 ** min(self._deaths - 1, 10), LONGEST_PAUSE)
        log.error("worker %d %s; starting another in %g s", self.number, ending.how, pause)
        self.state = "waiting"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause)

    # Commands.

    def stop(self, seconds: float) -> None:
        """Have the worker drain within `seconds`, and start no other."""
        self._stopping = True
        self._wake.set()
        self.released.set()
        self._stop_process(seconds)

    def reload(self) -> None:
        """Have the worker drain, and start another."""
        self._reloading = True
        self._wake.set()
        self._stop_process(self._settings.drain)

    def kill(self) -> None:
        """End the worker without any cleanup."""
        if self._process is not None:
            log.error("worker %d did not end in time; killing it", self.number)
            self.killed = True
            self._process.kill()

    def _stop_process(self, seconds: float) -> None:
        if self._process is None:
            return
        self._process.stop(seconds)
        grace = END_WITHIN if seconds == 0 else seconds + STOP_GRACE
        self._killers.add(asyncio.get_running_loop().call_later(grace, self.kill))

    # Health.

    async def health(self) -> WorkerHealth:
        """Return the state of the worker, within `ANSWER_WAIT` seconds."""
        reports, answer, silent = self._reports, None, 0.0
        if reports is not None and self.state == "running":
            answer = await reports.get()
            silent = reports.waiting
        return WorkerHealth(
            worker=self.number,
            pid=None if self._process is None else self._process.pid,
            state=self.state,
            restarts=self._restarts,
            silent_seconds=silent if silent > SILENT_AFTER else None,
            report=None if answer is None else answer.health,
            metrics="" if answer is None else answer.metrics,
        )
