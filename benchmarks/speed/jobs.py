"""The jobs of a worker: prepare, connect, publish at full speed or on a schedule, consume."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .accounting import Tally
from .contestant import Contestant, Item, Publishing
from .latencies import encoded
from .payload import Bodies, head_of
from .protocol import Job, JobResult, Task
from .schedule import Ticker
from .usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class JobControl:
    """Callbacks and events between a job and the worker that runs it."""

    begin: Callable[[], Awaitable[None]]
    """Reports that the job is ready; returns when the timed part may start."""
    progress: Callable[[int], None]
    """Reports the number of messages handled so far."""
    stop: asyncio.Event
    """Set to make the job end and report."""


WARM_UP_MESSAGES = 20
"""First messages of a producer, published before timing starts."""
CHUNK_MESSAGES = 100_000
"""Messages created at a time, outside the timed part."""
PROGRESS_INTERVAL = 0.1
"""Seconds between two progress reports."""
POLL_INTERVAL = 0.02
"""Longest delay in seconds before the last message is reported."""


async def prepare(contestant: Contestant, job: Job, control: JobControl) -> JobResult:
    """Create the topic and the group."""
    await contestant.prepare()
    return JobResult()


async def connect(contestant: Contestant, job: Job, control: JobControl) -> JobResult:
    """Measure the time to open a producer."""
    began = time.perf_counter()
    async with contestant.publishing():
        seconds = time.perf_counter() - began
    return JobResult(seconds=seconds)


async def publish(contestant: Contestant, job: Job, control: JobControl) -> JobResult:
    """Publish all messages at full speed; creating them is not timed."""
    bodies = Bodies(job.producer, job.size, typed=job.typed, keys=job.keys)
    warm = min(WARM_UP_MESSAGES, job.count)
    marks = ProgressMarks(job.count - warm)
    async with contestant.publishing() as publishing:
        await _send(publishing, bodies.items(0, warm), job, ProgressMarks(warm))
        chunk = bodies.items(warm, min(CHUNK_MESSAGES, job.count - warm))
        await control.begin()
        seconds = making = 0.0
        async with Usage(marks.share) as usage:
            first = warm
            while chunk:
                began = time.perf_counter()
                await _send(publishing, chunk, job, marks)
                seconds += time.perf_counter() - began
                first += len(chunk)
                began = time.process_time()
                chunk = bodies.items(first, min(CHUNK_MESSAGES, job.count - first))
                making += time.process_time() - began
    done = usage.report(job.count - warm)
    found = {"marks": marks.times, "seconds": seconds, "cpu": done.cpu - making}
    return done.model_copy(update=found)


class ProgressMarks:
    """The times at which each hundredth of `count` messages was confirmed."""

    def __init__(self, count: int) -> None:
        self.times: list[int] = []
        self._count = count
        self._step = max(1, count // 100)
        self._confirmed = 0

    def add(self, confirmed: int) -> None:
        """Record that `confirmed` more messages are confirmed."""
        before = self._confirmed // self._step
        self._confirmed += confirmed
        passed = self._confirmed // self._step - before
        if passed:
            self.times += [time.monotonic_ns()] * passed

    def share(self) -> float:
        """Return the confirmed share, from 0 to 1."""
        return self._confirmed / max(1, self._count)


async def _send(
    publishing: Publishing, items: Sequence[Item], job: Job, marks: ProgressMarks
) -> None:
    if job.many:
        for start in range(0, len(items), job.batch):
            batch = items[start : start + job.batch]
            await publishing.many(batch)
            marks.add(len(batch))
        return
    rest = iter(items)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(job.tasks, len(items))):
            group.create_task(_one_by_one(publishing, rest, marks))


async def _one_by_one(publishing: Publishing, items: Iterator[Item], marks: ProgressMarks) -> None:
    for item in items:
        await publishing.one(item)
        marks.add(1)


async def scheduled_publish(contestant: Contestant, job: Job, control: JobControl) -> JobResult:
    """Publish each message at its scheduled time, regardless of the confirmation of earlier ones.

    The first messages are published before, to check that the consumer receives them.
    """
    bodies = Bodies(job.producer, job.size, typed=job.typed, keys=job.keys)
    delays, confirms = array("q"), array("q")

    async def send(publishing: Publishing, number: int, intended: int) -> None:
        if number >= job.skip:
            delays.append(time.monotonic_ns() - intended)
        await publishing.one(bodies.item(number, intended))
        if number >= job.skip:
            confirms.append(time.monotonic_ns() - intended)

    warm = min(WARM_UP_MESSAGES, job.count)
    async with contestant.publishing() as publishing:
        await _send(publishing, bodies.items(0, warm), job, ProgressMarks(warm))
        await control.begin()
        async with Usage(lambda: len(confirms) / job.count) as usage:
            first = warm
            async with asyncio.TaskGroup() as group, Ticker(job.rate, job.count - warm) as ticks:
                async for intended, due in ticks:
                    for number in range(first, first + due):
                        group.create_task(send(publishing, number, intended))
                    first += due
    done = usage.report(job.count - warm)
    return done.model_copy(update={"delay": encoded(delays), "confirm": encoded(confirms)})


async def consume(contestant: Contestant, job: Job, control: JobControl) -> JobResult:
    """Handle and acknowledge messages until all have been handled or the job is stopped."""
    tally = Tally(producers=job.producers, count=job.count, keys=job.keys, typed=job.typed)
    latencies = array("q")

    def timed(body: bytes) -> None:
        _, number, intended = head_of(body, typed=job.typed)
        if number >= job.skip:
            latencies.append(time.monotonic_ns() - intended)
        tally.handle(body)

    handle = timed if job.timed else tally.handle
    await control.begin()
    async with Usage(lambda: tally.handled / max(1, tally.expected)) as usage:
        consuming = asyncio.ensure_future(contestant.consume(handle, tally.done, typed=job.typed))
        watching = asyncio.create_task(_watch(tally, control))
        stopping = asyncio.create_task(control.stop.wait())
        await asyncio.wait({consuming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        watching.cancel()
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
    done = usage.report(tally.handled)
    found = {"deliveries": tally.report(), "latency": encoded(latencies) if job.timed else None}
    return done.model_copy(update=found)


async def _watch(tally: Tally, control: JobControl) -> None:
    loop = asyncio.get_running_loop()
    said = loop.time()
    complete = False
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        all_handled = tally.handled >= tally.expected
        if all_handled > complete or loop.time() - said >= PROGRESS_INTERVAL:
            complete, said = all_handled, loop.time()
            control.progress(tally.handled)


JOBS: dict[Task, Callable[[Contestant, Job, JobControl], Awaitable[JobResult]]] = {
    "prepare": prepare,
    "publish": publish,
    "scheduled_publish": scheduled_publish,
    "consume": consume,
    "connect": connect,
}
