"""Microbenchmarks: import time, connect time, and fairness of two publishers on one SQLite file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from statistics import median

from .accounting import Account, account
from .contestant import Contestant
from .contestants import contestants
from .environment import Environment
from .measurement import wait_for_consumers
from .protocol import Job, JobResult
from .results import Microbenchmarks
from .workers import JobFailed, JobHandle
from .workloads import Workload

PUBLISHERS = 2

_IMPORT = (
    "import time; began = time.perf_counter(); import anymq; print(time.perf_counter() - began)"
)


def import_time(times: int) -> float:
    """Return the median duration of `import anymq` in a new interpreter, in ms."""

    def once() -> float:
        command = [sys.executable, "-c", _IMPORT]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout) * 1000

    once()  # compiles modules and fills the file cache
    return median(once() for _ in range(times))


async def connect_time(environment: Environment, results: Microbenchmarks, times: int) -> None:
    """Record the median time to open a producer, in ms, with anymq and in excess of the raw client.

    Each is opened once as a warm-up, then `times` times.
    """
    backend = environment.target.backend
    found = {one.name: one for one in contestants(backend)}
    taken: dict[str, list[float]] = {"anymq": [], "raw": []}
    try:
        for number in range(times + 1):
            for name in taken:
                if name in found and not found[name].missing():
                    result = await _connect(environment, found[name])
                    taken[name] += [result.seconds * 1000] if number else []
    except JobFailed as error:
        results.missing[f"connect {backend}"] = str(error)
        return
    medians = {name: median(values) for name, values in taken.items() if values}
    for name, value in medians.items():
        results.values[f"connect {backend} {name}"] = value
    if len(medians) == len(taken):
        results.values[f"connect {backend}"] = medians["anymq"] - medians["raw"]


async def _connect(environment: Environment, contestant: type[Contestant]) -> JobResult:
    topic = environment.new_topic(Workload(name="", kind="publish", ability="publish", title=""))
    job = Job(task="connect", backend=contestant.backend, contestant=contestant.name, topic=topic)
    return await environment.worker(contestant, "producer").run(job)


async def fairness(environment: Environment, results: Microbenchmarks, messages: int) -> None:
    """Record the share that the slower of two publishers had published when the faster one ended.

    1 is a tie. Both publish `messages` messages to the same topic; a loss is recorded as missing.
    """
    contestant = contestants(environment.target.backend)[0]
    try:
        share, result = await _publish_concurrently(environment, contestant, messages)
    except JobFailed as error:
        results.missing[f"fairness {environment.target.backend}"] = str(error)
        return
    if result.lost:
        results.missing[f"fairness {environment.target.backend}"] = f"lost {result.lost}"
    else:
        results.values[f"fairness {environment.target.backend}"] = share


async def _publish_concurrently(
    environment: Environment, contestant: type[Contestant], messages: int
) -> tuple[float, Account]:
    topic = environment.new_topic(Workload(name="", kind="publish", ability="publish", title=""))
    settings = {
        "backend": contestant.backend,
        "contestant": contestant.name,
        "topic": topic,
        "count": messages,
    }
    workers = [environment.worker(contestant, f"producer-{number}") for number in range(PUBLISHERS)]
    await workers[0].run(Job.model_validate({"task": "prepare", **settings}))
    handles: list[JobHandle] = []
    for number, worker in enumerate(workers):
        job = Job.model_validate({"task": "publish", "producer": number, **settings})
        handles.append(await worker.submit(job))
    await asyncio.gather(*(one.ready for one in handles))
    for one in handles:
        one.go()
    done = await asyncio.gather(*(one.done for one in handles))
    consume = Job.model_validate({"task": "consume", "producers": PUBLISHERS, **settings})
    consumer = await environment.worker(contestant, "consumer-0").submit(consume)
    consumer.go()
    (consumed,) = await wait_for_consumers([consumer], PUBLISHERS * messages)
    environment.discard(contestant, topic)
    assert consumed.deliveries is not None
    return slower_share([one.marks for one in done]), account([consumed.deliveries], count=messages)


def slower_share(marks: list[list[int]]) -> float:
    """Return the share of its messages that the slower one had published when the faster ended."""
    ended = min(times[-1] for times in marks)
    return min(sum(time <= ended for time in times) / len(times) for times in marks)
