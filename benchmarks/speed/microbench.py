"""Small measurements that are no workload: starting up, and two processes on one SQLite file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from statistics import median

from .accounting import Account, account
from .contestant import Contestant
from .contestants import contestants
from .environment import Environment
from .measurement import supervised
from .protocol import Job, JobResult
from .results import Microbenchmarks
from .workers import JobFailed, JobHandle
from .workloads import Workload

PUBLISHERS = 2

_IMPORT = (
    "import time; began = time.perf_counter(); import anymq; print(time.perf_counter() - began)"
)


def import_time(times: int) -> float:
    """Return what `import anymq` takes in a new interpreter, in ms: the median of so many times."""

    def once() -> float:
        command = [sys.executable, "-c", _IMPORT]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout) * 1000

    once()  # compiles what has not been compiled, reads the files
    return median(once() for _ in range(times))


async def connect_time(environment: Environment, results: Microbenchmarks, turns: int) -> None:
    """Note what opening a producer takes, in ms, with anymq and beyond the raw client."""
    backend = environment.target.backend
    found = {one.name: one for one in contestants(backend)}
    times: dict[str, list[float]] = {"anymq": [], "raw": []}
    try:
        for turn in range(turns + 1):
            for name in times:
                if name in found and not found[name].missing():
                    done = await _connect(environment, found[name])
                    times[name] += [done.seconds * 1000] if turn else []
    except JobFailed as error:
        results.missing[f"connect {backend}"] = str(error)
        return
    medians = {name: median(taken) for name, taken in times.items() if taken}
    for name, value in medians.items():
        results.values[f"connect {backend} {name}"] = value
    if len(medians) == len(times):
        results.values[f"connect {backend}"] = medians["anymq"] - medians["raw"]


async def _connect(environment: Environment, contestant: type[Contestant]) -> JobResult:
    topic = environment.new_topic(Workload(name="", kind="publish", ability="publish", title=""))
    job = Job(task="connect", backend=contestant.backend, contestant=contestant.name, topic=topic)
    return await environment.worker(contestant, "producer").run(job)


async def fairness(environment: Environment, results: Microbenchmarks, each: int) -> None:
    """Note how far the slower of two publishing processes had come when the faster one was done.

    1 is a tie. Both publish `each` messages to the same topic; nothing may be lost.
    """
    contestant = contestants(environment.target.backend)[0]
    try:
        share, result = await _side_by_side(environment, contestant, each)
    except JobFailed as error:
        results.missing[f"fairness {environment.target.backend}"] = str(error)
        return
    if result.lost:
        results.missing[f"fairness {environment.target.backend}"] = f"lost {result.lost}"
    else:
        results.values[f"fairness {environment.target.backend}"] = share


async def _side_by_side(
    environment: Environment, contestant: type[Contestant], each: int
) -> tuple[float, Account]:
    topic = environment.new_topic(Workload(name="", kind="publish", ability="publish", title=""))
    settings = {
        "backend": contestant.backend,
        "contestant": contestant.name,
        "topic": topic,
        "count": each,
    }
    workers = [environment.worker(contestant, f"producer-{number}") for number in range(PUBLISHERS)]
    await workers[0].run(Job.model_validate({"task": "prepare", **settings}))
    given: list[JobHandle] = []
    for number, worker in enumerate(workers):
        job = Job.model_validate({"task": "publish", "producer": number, **settings})
        given.append(await worker.submit(job))
    await asyncio.gather(*(one.ready for one in given))
    for one in given:
        one.go()
    done = await asyncio.gather(*(one.done for one in given))
    consume = Job.model_validate({"task": "consume", "producers": PUBLISHERS, **settings})
    consumer = await environment.worker(contestant, "consumer-0").submit(consume)
    consumer.go()
    (consumed,) = await supervised([consumer], PUBLISHERS * each)
    environment.leave(contestant, topic)
    assert consumed.deliveries is not None
    return share_of_the_slower([one.marks for one in done]), account(
        [consumed.deliveries], count=each
    )


def share_of_the_slower(marks: list[list[int]]) -> float:
    """Return how much of its work the slower one had done when the faster one had done all."""
    ended = min(times[-1] for times in marks)
    return min(sum(time <= ended for time in times) / len(times) for times in marks)
