"""What a worker is told to do, and what it reports: JSON lines on its standard input and output."""

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
    """The report of a job. Times are in seconds, memory in bytes of resident set, of this process.

    `cpu` is what all threads of the process took while the job ran. Histograms are HdrHistograms,
    encoded, in microseconds: `latency` from the intended time to the handler, `confirm` to the
    confirmation, `delay` to the call.
    """

    messages: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    rss_before: int = 0
    rss_early: int = 0
    """When a tenth of the job was done."""
    rss_peak: int = 0
    rss_after: int = 0
    marks: list[int] = []
    """Producers: the monotonic clock (ns) at each hundredth."""
    deliveries: ConsumerReport | None = None
    latency: str | None = None
    confirm: str | None = None
    delay: str | None = None


class Command(BaseModel):
    """A line to a worker: begin `job` and say when ready; `go`; or `stop` and report."""

    number: int
    verb: Literal["begin", "go", "stop", "reset"]
    job: Job | None = None


class Event(BaseModel):
    """A line from a worker, on the job of that number."""

    number: int
    kind: Literal["ready", "progress", "done", "failed"]
    handled: int = 0
    done: JobResult | None = None
    error: str = ""
