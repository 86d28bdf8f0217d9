"""RabbitMQ's PerfTest."""

from __future__ import annotations

import re

from ...contestant import Place
from .. import rabbitmq
from ..address import plain
from ..durability import DURABILITY
from . import java
from .tool import Native, ToolFailed, report_of

_NAME = "rabbitmq-perf-test-2.22.1"
_ARTIFACTS = {"com.rabbitmq:perf-test": "2.22.1"}
_RATES = re.compile(r"(sending|receiving) rate avg: (\d+) msg/s")
UNCONFIRMED = 1000


class PerfTest(Native):
    """One producer, one consumer, in Java."""

    backend = "rabbitmq"
    durability = DURABILITY["rabbitmq"]
    how = (
        f"PerfTest: at most {UNCONFIRMED} unconfirmed, persistent, no headers; "
        f"prefetch {rabbitmq.PREFETCH}, acknowledged {rabbitmq.ACK_EVERY} at a time"
    )

    @classmethod
    def missing(cls) -> str | None:
        return java.missing()

    def install(self) -> None:
        java.fetch(_NAME, _ARTIFACTS)

    async def prepare(self, place: Place) -> None:
        await rabbitmq.Raw(place).prepare()

    async def publish(self, place: Place, *, count: int, size: int) -> float:
        argv = [*_command(place), "--producers", "1", "--consumers", "0"]
        argv += ["--pmessages", str(count), "--size", str(size), "--flag", "persistent"]
        argv += ["--confirm", str(UNCONFIRMED)]
        return average("sending", await report_of(argv))

    async def consume(self, place: Place, *, count: int) -> float:
        argv = [*_command(place), "--producers", "0", "--consumers", "1"]
        argv += ["--cmessages", str(count), "--qos", str(rabbitmq.PREFETCH)]
        argv += ["--multi-ack-every", str(rabbitmq.ACK_EVERY)]
        return average("receiving", await report_of(argv))


def average(doing: str, report: str) -> float:
    """Return the rate that the last lines tell."""
    rates = [int(rate) for what, rate in _RATES.findall(report) if what == doing]
    if not rates:
        raise ToolFailed(f"PerfTest told no {doing} rate: {report[-300:]}")
    return float(rates[-1])


def _command(place: Place) -> list[str]:
    url = plain(place.url)
    if url.endswith("/"):
        url += "%2f"  # an empty path is a virtual host without a name
    argv = java.command(_NAME, "com.rabbitmq.perf.PerfTest")
    return [*argv, "--uri", url, "--predeclared", "--queue", rabbitmq.queue_of(place)]
