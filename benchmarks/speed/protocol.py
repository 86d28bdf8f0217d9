"""The protocol between run and worker: JSON lines on the worker's standard input and output."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from .accounting import ConsumerReport
from .contestant import BenchTopic

Task = Literal["prepare", "publish", "scheduled_publish", "consume", "connect"]


class Job(BaseModel):
    """One task of one contestant.

    `prepare` creates the topic and the group. `publish` publishes `count` messages at full speed;
    `scheduled_publish` publishes them at `rate` messages/s, each at a time fixed in advance.
    `consume` consumes the messages of all `producers`; with `timed`, it records the latency of
    those numbered `skip` and above. `connect` opens and closes a producer.
    """

    task: Task
    backend: str
    contestant: str
    topic: BenchTopic
    producer: int = 0
    producers: int = 1
    count: int = 0
    size: int = 256
    typed: bool = False
    keys: int = 0
    many: bool = False
    tasks: int = 256
    batch: int = 1000
    rate: float = 0.0
    skip: int = 0
    timed: bool = False


class JobResult(BaseModel):
    """The report of a finished job. Times are in seconds, memory is resident memory in bytes.

    `cpu` is the CPU time of all threads of the worker during the job. Histograms are encoded
    HdrHistograms in microseconds, counted from the intended send time: `latency` to the handler,
    `confirm` to the confirmation, `delay` to the publish call.
    """

    messages: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    rss_before: int = 0
    rss_early: int = 0
    """At a tenth of the job."""
    rss_peak: int = 0
    rss_after: int = 0
    marks: list[int] = []
    """Producers: monotonic clock in ns at each hundredth of the messages."""
    deliveries: ConsumerReport | None = None
    latency: str | None = None
    confirm: str | None = None
    delay: str | None = None


class Command(BaseModel):
    """A command to a worker.

    `begin` starts a job, which reports when it is ready; `go` starts its timed part; `stop` ends
    it. `reset` discards the state of earlier jobs.
    """

    number: int
    verb: Literal["begin", "go", "stop", "reset"]
    job: Job | None = None


class Event(BaseModel):
    """An event of the job with that number."""

    number: int
    kind: Literal["ready", "progress", "done", "failed"]
    handled: int = 0
    done: JobResult | None = None
    error: str = ""
