"""One measurement: one contestant runs one workload once, on a topic of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .accounting import Account, ConsumerReport, account, steady_rate
from .contestant import BenchTopic, Contestant
from .contestants import contestant
from .environment import Environment
from .jobs import WARM_UP_MESSAGES
from .protocol import Job, JobResult
from .results import Sample
from .workers import JobFailed, JobHandle, WorkerProcess
from .workloads import Workload

STALL_TIMEOUT = 15.0
"""Seconds without progress after which missing messages count as lost."""
QUIET_PERIOD = 0.5
"""Seconds without progress after which several consumers have handled everything."""
MEASUREMENT_TIMEOUT = 180.0
"""Seconds."""
POLL_INTERVAL = 0.02
"""Seconds."""


async def measure(
    environment: Environment,
    workload: Workload,
    contestant: type[Contestant],
    *,
    count: int,
    round: int,
    rate: float = 0.0,
) -> Sample:
    """Return the timed side of one measurement; arguments are those of `measure_both`."""
    measured = await measure_both(
        environment, workload, contestant, count=count, round=round, rate=rate
    )
    return measured.published if workload.kind == "publish" else measured.consumed


@dataclass(frozen=True, slots=True)
class Measurement:
    """The samples of both sides of one measurement."""

    published: Sample
    consumed: Sample


async def measure_both(
    environment: Environment,
    workload: Workload,
    contestant: type[Contestant],
    *,
    count: int,
    round: int,
    rate: float = 0.0,
    on_handled: Callable[[], None] = lambda: None,
) -> Measurement:
    """Run `workload` once with `count` messages and return the samples of both sides.

    A latency workload needs the `rate` to publish at, in messages/s. Calls `on_handled` when all
    messages have been handled and only closing is left. Raises `JobFailed` if a worker fails or
    the measurement takes longer than `MEASUREMENT_TIMEOUT`.
    """
    topic = await environment.prepared_topic(contestant, workload)
    run = _Runner(environment, workload, contestant, topic, count, on_handled)
    try:
        async with asyncio.timeout(MEASUREMENT_TIMEOUT):
            if workload.kind in ("publish", "consume"):
                measured = await run.publish_then_consume()
            else:
                sample = await run.end_to_end(rate)
                measured = Measurement(sample, sample)
    except TimeoutError:
        await run.kill()
        raise JobFailed(f"measurement exceeded {MEASUREMENT_TIMEOUT:g} s") from None
    except JobFailed:
        await run.kill()
        raise
    finally:
        environment.discard(contestant, topic)
    found = {"round": round, "server_cpu": run.server_cpu}
    return Measurement(
        measured.published.model_copy(update=found), measured.consumed.model_copy(update=found)
    )


class _Runner:
    def __init__(
        self,
        environment: Environment,
        workload: Workload,
        contestant: type[Contestant],
        topic: BenchTopic,
        count: int,
        on_handled: Callable[[], None],
    ) -> None:
        self._target = environment.target
        self._workload = workload
        self._contestant = contestant
        self._counting_contestant = _counting_contestant(workload, contestant)
        self._topic = topic
        self._count = count
        self._on_handled = on_handled
        self._cpu = self._target.cpu()
        self.server_cpu: float | None = None
        """CPU seconds of the server per million messages, until all had been handled."""
        self.producer = environment.worker(contestant, "producer")
        self._consumers = environment.workers(self._counting_contestant, workload.consumers)[1:]

    def _note_server_cpu(self) -> None:
        cpu = self._target.cpu()
        if cpu is not None and self._cpu is not None:
            self.server_cpu = (cpu - self._cpu) / self._count * 1e6
        self._on_handled()

    def job(self, task: str, **more: object) -> Job:
        workload = self._workload
        settings = {
            "task": task,
            "backend": self._contestant.backend,
            "contestant": self._contestant.name,
            "topic": self._topic,
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

    async def publish_then_consume(self) -> Measurement:
        """Time publishing, then time consuming the backlog."""
        handle = await self._ready(self.producer, self.job("publish"))
        handle.go()
        done = await handle.done
        began = time.perf_counter()
        consumed = await wait_for_consumers(
            await self._consume(), self._count, self._note_server_cpu
        )
        emptied = steady_rate(_reports(consumed)) or self._count / (time.perf_counter() - began)
        busy = done.seconds + self._count / emptied
        return Measurement(
            self._sample(done.messages / done.seconds, [done], consumed, busy),
            self._sample(emptied, consumed, consumed, busy),
        )

    async def end_to_end(self, rate: float) -> Sample:
        """Publish and consume concurrently, at `rate` messages/s or, with 0, at full speed."""
        skip = WARM_UP_MESSAGES + self._count // 10
        consumers = await self._consume(timed=bool(rate), skip=skip)
        task = "scheduled_publish" if rate else "publish"
        producer = await self._ready(self.producer, self.job(task, rate=rate, skip=skip))
        await _until(lambda: sum(one.handled for one in consumers) >= WARM_UP_MESSAGES)
        producer.go()
        done, consumed = await asyncio.gather(
            producer.done, wait_for_consumers(consumers, self._count, self._note_server_cpu)
        )
        reached = rate or steady_rate(_reports(consumed)) or done.messages / done.seconds
        sample = self._sample(reached, [done, *consumed], consumed, self._count / reached)
        found = {
            "latency": consumed[0].latency,
            "confirm": done.confirm,
            "delay": done.delay,
        }
        return sample.model_copy(update=found)

    async def _consume(self, **more: object) -> list[JobHandle]:
        job = self.job("consume", contestant=self._counting_contestant.name, **more)
        handles = [await self._ready(worker, job) for worker in self._consumers]
        for handle in handles:
            handle.go()
        return handles

    async def _ready(self, worker: WorkerProcess, job: Job) -> JobHandle:
        handle = await worker.submit(job)
        await handle.ready
        return handle

    def _sample(
        self, rate: float, timed: Sequence[JobResult], consumed: Sequence[JobResult], busy: float
    ) -> Sample:
        result = account(_reports(consumed), count=self._count)
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


def _counting_contestant(workload: Workload, measured: type[Contestant]) -> type[Contestant]:
    """Return the contestant that consumes; `counted_by` replaces it only if that is not timed."""
    if workload.kind == "publish" and measured.counted_by:
        return contestant(measured.backend, measured.counted_by)
    return measured


def _void(result: Account, *, ordered: bool) -> str:
    if result.lost:
        return f"lost {result.lost} of {result.messages}"
    if ordered and result.reorders:
        return f"{result.reorders} of {result.messages} out of order"
    return ""


def _reports(consumed: Sequence[JobResult]) -> list[ConsumerReport]:
    return [done.deliveries for done in consumed if done.deliveries is not None]


async def wait_for_consumers(
    consumers: Sequence[JobHandle], count: int, on_handled: Callable[[], None] = lambda: None
) -> list[JobResult]:
    """Wait until `count` messages are handled or progress has ceased; return the final reports.

    Calls `on_handled` once, as soon as either is known.
    """
    loop = asyncio.get_running_loop()
    shared = len(consumers) > 1
    handled, changed = -1, loop.time()
    told = False
    while not all(one.done.done() for one in consumers):
        now = sum(one.handled for one in consumers)
        if now >= count and not told:
            told = True
            on_handled()
        if now != handled:
            handled, changed = now, loop.time()
        if loop.time() - changed > (QUIET_PERIOD if shared and handled >= count else STALL_TIMEOUT):
            break
        await asyncio.sleep(POLL_INTERVAL)
    if not told:
        on_handled()
    for one in consumers:
        one.stop()
    return [await one.done for one in consumers]


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until the first messages have been handled; raise `JobFailed` after `STALL_TIMEOUT`."""
    for _ in range(int(STALL_TIMEOUT / POLL_INTERVAL)):
        if condition():
            return
        await asyncio.sleep(POLL_INTERVAL)
    raise JobFailed(f"the first messages did not reach the consumer within {STALL_TIMEOUT:g} s")
