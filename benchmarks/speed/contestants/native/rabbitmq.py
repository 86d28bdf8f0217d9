"""RabbitMQ's PerfTest."""

from __future__ import annotations

import re
from statistics import median

from brokers import maven

from ...contestant import BenchTopic
from .. import rabbitmq
from ..address import plain
from ..durability import DURABILITY
from . import java
from .tool import Native, ToolFailed, report_of

_NAME = "rabbitmq-perf-test-2.22.1"
_ARTIFACTS = {"com.rabbitmq:perf-test": "2.22.1"}
_EACH_SECOND = re.compile(r"(confirmed|received): (\d+) msg/s")
_AVERAGE = {"confirmed": "sending", "received": "receiving"}
_ENOUGH = 3
"""Seconds of a run from which the first one, a warm-up, is excluded."""
UNCONFIRMED = 1000


class PerfTest(Native):
    """One producer, one consumer, in Java."""

    backend = "rabbitmq"
    durability = DURABILITY["rabbitmq"]
    how = (
        f"PerfTest: at most {UNCONFIRMED} unconfirmed, persistent, no headers; "
        f"prefetch {rabbitmq.PREFETCH}, acknowledged {rabbitmq.ACK_EVERY} at a time; "
        "the median of all seconds"
    )

    @classmethod
    def missing(cls) -> str | None:
        return java.missing()

    def install(self) -> None:
        maven.fetch(_NAME, _ARTIFACTS)

    async def prepare(self, topic: BenchTopic) -> None:
        await rabbitmq.Raw(topic).prepare()

    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float:
        argv = [*_command(topic), "--producers", "1", "--consumers", "0"]
        argv += ["--pmessages", str(count), "--size", str(size), "--flag", "persistent"]
        argv += ["--confirm", str(UNCONFIRMED)]
        return rate("confirmed", await report_of(argv))

    async def consume(self, topic: BenchTopic, *, count: int) -> float:
        argv = [*_command(topic), "--producers", "0", "--consumers", "1"]
        argv += ["--cmessages", str(count), "--qos", str(rabbitmq.PREFETCH)]
        argv += ["--multi-ack-every", str(rabbitmq.ACK_EVERY)]
        return rate("received", await report_of(argv))


def rate(what: str, report: str) -> float:
    """Return the median of all seconds but the first; of a short run, the average."""
    seconds = [int(number) for doing, number in _EACH_SECOND.findall(report) if doing == what]
    if len(seconds) >= _ENOUGH:
        return float(median(seconds[1:]))
    averages: list[str] = re.findall(rf"{_AVERAGE[what]} rate avg: (\d+) msg/s", report)
    if not averages:
        raise ToolFailed(f"PerfTest printed no {_AVERAGE[what]} rate: {report[-300:]}")
    return float(averages[-1])


def _command(topic: BenchTopic) -> list[str]:
    url = plain(topic.url)
    if url.endswith("/"):
        url += "%2f"  # an empty path is a virtual host without a name
    argv = java.command(_NAME, "com.rabbitmq.perf.PerfTest")
    return [*argv, "--uri", url, "--predeclared", "--queue", rabbitmq.queue_of(topic)]
