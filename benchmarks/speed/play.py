"""One measurement: one contestant does one workload once, on a topic of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from .contestant import Contestant, Place
from .counting import Account, Seen, account, steady_rate
from .crew import Assignment, JobFailed, WorkerProcess
from .job import Done, Job
from .results import Sample
from .roles import WARM
from .stage import Stage
from .workloads import Workload

PATIENCE = 15.0
"""Seconds without progress after which what is missing counts as lost."""
QUIET = 0.5
"""Seconds to wait for more, where nobody alone can tell that everything has come."""
LONGEST = 180.0
LOOK = 0.05


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
