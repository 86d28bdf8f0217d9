"""One measurement: one contestant does one workload once, on a topic of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import anymq

from .contestant import Contestant, Place
from .contestants.anymq import STORE_VARIABLE
from .counting import Account, Seen, account, steady_rate
from .crew import Assignment, JobFailed, WorkerProcess
from .job import Done, Job
from .results import Sample
from .roles import WARM
from .servers import Target
from .sweep import STORED, sweep, sweep_store
from .workloads import Workload

PATIENCE = 15.0
"""Seconds without progress after which what is missing counts as lost."""
QUIET = 0.5
"""Seconds to wait for more, where nobody alone can tell that everything has come."""
LONGEST = 180.0
LOOK = 0.05


class Stage:
    """A backend with the workers that play on it; use it as a context.

    `token` is in the names of everything that is made there.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self._folder = folder
        self._workers: dict[str, WorkerProcess] = {}
        self._stack = AsyncExitStack()
        self._broker: anymq.Broker | None = None
        self.token = f"bench-{uuid4().hex[:8]}"
        self._runs = 0

    async def __aenter__(self) -> Self:
        if self.target.shared:
            self._broker = await self._stack.enter_async_context(anymq.connect(self.target.url))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.dismiss()
        await self._stack.aclose()

    async def dismiss(self) -> None:
        """End all workers; the next job starts new ones."""
        await asyncio.gather(*(worker.aclose() for worker in self._workers.values()))
        self._workers.clear()

    def worker(self, contestant: type[Contestant], role: str) -> WorkerProcess:
        """Return the process for a role of a contestant; where only one can be, always that."""
        name = f"{self.target.backend}-{contestant.name}-{role if self.target.shared else 'both'}"
        name = name.replace(" ", "-")
        if name not in self._workers:
            self._workers[name] = WorkerProcess(name, self._folder)
        return self._workers[name]

    def workers(self, contestant: type[Contestant], consumers: int) -> list[WorkerProcess]:
        """Return the producer's process, then those of the consumers."""
        roles = ["producer", *(f"consumer-{number}" for number in range(consumers))]
        return [self.worker(contestant, role) for role in roles]

    def place(self, workload: Workload) -> Place:
        """Return a topic that nobody has used before."""
        self._runs += 1
        return Place(
            url=self.target.url,
            topic=f"{self.token}-{self._runs}",
            group=f"{self.token}-{self._runs}-group",
            partitions=workload.partitions,
            ordered=workload.ordered,
        )

    async def clear(self, contestant: type[Contestant], place: Place) -> None:
        """Remove what a run has left."""
        await self.sweep(place)
        if contestant.name == STORED:
            await sweep_store(os.environ.get(STORE_VARIABLE, self.target.url), place)
        if not self.target.shared:
            self.worker(contestant, "both").forget()

    async def sweep(self, place: Place) -> None:
        """Remove what is left at the broker."""
        if self._broker is not None:
            await sweep(self._broker, self.target.backend, place)


async def play(
    stage: Stage,
    workload: Workload,
    contestant: type[Contestant],
    *,
    count: int,
    round: int,
    rate: float = 0.0,
) -> Sample:
    """Measure once, with `count` messages; raises `JobFailed`. `rate` is for latency workloads."""
    place = stage.place(workload)
    run = _Run(stage, workload, contestant, place, count)
    try:
        async with asyncio.timeout(LONGEST):
            await run.producer.do(run.job("prepare"))
            began = stage.target.cpu()
            if workload.kind == "publish":
                sample = await run.publish()
            elif workload.kind == "drain":
                sample = await run.drain()
            else:
                sample = await run.flow(rate)
            ended = stage.target.cpu()
    except TimeoutError:
        await run.kill()
        raise JobFailed(f"took more than {LONGEST:g} s") from None
    except JobFailed:
        await run.kill()
        raise
    finally:
        await stage.clear(contestant, place)
    server = None if began is None or ended is None else (ended - began) / count * 1e6
    return sample.model_copy(update={"round": round, "server_cpu": server})


class _Run:
    def __init__(
        self,
        stage: Stage,
        workload: Workload,
        contestant: type[Contestant],
        place: Place,
        count: int,
    ) -> None:
        self._workload = workload
        self._contestant = contestant
        self._place = place
        self._count = count
        self.producer, *self._consumers = stage.workers(contestant, workload.consumers)

    def job(self, task: str, **more: object) -> Job:
        workload = self._workload
        settings = {
            "task": task,
            "backend": self._contestant.backend,
            "contestant": self._contestant.name,
            "place": self._place,
            "count": self._count,
            "size": workload.size,
            "typed": workload.typed,
            "keys": workload.keys,
            "many": workload.many,
            "tasks": workload.tasks,
            "batch": workload.batch,
        }
        return Job.model_validate({**settings, **more})

    async def kill(self) -> None:
        for worker in (self.producer, *self._consumers):
            await worker.kill()

    async def publish(self) -> Sample:
        """Publish with the clock running; then count what there is."""
        assignment = await self._ready(self.producer, self.job("publish"))
        assignment.go()
        done = await assignment.done
        consumed = await supervised(await self._consume(), self._count)
        busy = done.seconds + self._count / (steady_rate(_seen(consumed)) or self._count)
        return self._sample(done.messages / done.seconds, [done], consumed, busy)

    async def drain(self) -> Sample:
        """Fill up; then consume with the clock running."""
        filled = await self.producer.do(self.job("publish", many=True), LONGEST)
        began = time.perf_counter()
        consumed = await supervised(await self._consume(), self._count)
        rate = steady_rate(_seen(consumed)) or self._count / (time.perf_counter() - began)
        return self._sample(rate, consumed, consumed, filled.seconds + self._count / rate)

    async def flow(self, rate: float) -> Sample:
        """Publish and consume at once; at `rate` messages a second, if there is one."""
        skip = WARM + self._count // 10
        consumers = await self._consume(timed=bool(rate), skip=skip)
        task = "pace" if rate else "publish"
        producer = await self._ready(self.producer, self.job(task, rate=rate, skip=skip))
        await _until(lambda: sum(one.handled for one in consumers) >= WARM)
        producer.go()
        done, consumed = await asyncio.gather(producer.done, supervised(consumers, self._count))
        reached = rate or steady_rate(_seen(consumed)) or done.messages / done.seconds
        sample = self._sample(reached, [done, *consumed], consumed, self._count / reached)
        found = {
            "latency": consumed[0].latency,
            "confirm": done.confirm,
            "delay": done.delay,
        }
        return sample.model_copy(update=found)

    async def _consume(self, **more: object) -> list[Assignment]:
        job = self.job("consume", **more)
        assignments = [await self._ready(worker, job) for worker in self._consumers]
        for assignment in assignments:
            assignment.go()
        return assignments

    async def _ready(self, worker: WorkerProcess, job: Job) -> Assignment:
        assignment = await worker.give(job)
        await assignment.ready
        return assignment

    def _sample(
        self, rate: float, timed: Sequence[Done], consumed: Sequence[Done], busy: float
    ) -> Sample:
        result = account(_seen(consumed), count=self._count)
        used = [done.cpu for done in timed]
        cpu = max(used) if self._contestant.backend == "memory" else sum(used)
        return Sample(
            round=0,
            rate=rate,
            messages=self._count,
            busy=busy,
            account=result,
            cpu=cpu / self._count * 1e6,
            rss_growth=max(done.rss_peak - done.rss_early for done in timed),
            rss_peak=max(done.rss_peak for done in timed),
            void=_void(result, ordered=self._workload.ordered),
        )


def _void(result: Account, *, ordered: bool) -> str:
    if result.lost:
        return f"lost {result.lost} of {result.messages}"
    if ordered and result.reorders:
        return f"{result.reorders} of {result.messages} out of order"
    return ""


def _seen(consumed: Sequence[Done]) -> list[Seen]:
    return [done.seen for done in consumed if done.seen is not None]


async def supervised(consumers: Sequence[Assignment], count: int) -> list[Done]:
    """Wait until everything has come, or nothing comes any more; then have them report."""
    loop = asyncio.get_running_loop()
    shared = len(consumers) > 1
    handled, changed = -1, loop.time()
    while not all(one.done.done() for one in consumers):
        now = sum(one.handled for one in consumers)
        if now != handled:
            handled, changed = now, loop.time()
        if loop.time() - changed > (QUIET if shared and handled >= count else PATIENCE):
            break
        await asyncio.sleep(LOOK)
    for one in consumers:
        one.stop()
    return [await one.done for one in consumers]


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until messages get through."""
    for _ in range(int(PATIENCE / LOOK)):
        if condition():
            return
        await asyncio.sleep(LOOK)
    raise JobFailed("the first messages did not reach the consumer")
