"""redis-benchmark, which is installed with redis-server."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from anymq import URL
from brokers import state
from brokers.debian import HOST_ROOT, SUITE, Root
from brokers.tools import which

from ...contestant import BenchTopic
from .. import redis
from ..durability import DURABILITY
from .tool import Native, ToolFailed, report_of

_PROGRAM = "redis-benchmark"
_PORT = 6379


class RedisBenchmark(Native):
    """One connection, in C. It cannot consume, because XACK needs ids from XREADGROUP."""

    backend = "redis"
    durability = DURABILITY["redis"]
    how = f"redis-benchmark: one connection, pipelines of {redis.BATCH} XADD without headers"

    @classmethod
    def missing(cls) -> str | None:
        return None if _program() else _PROGRAM

    def install(self) -> None:
        """Do nothing: the server's package contains it."""

    async def prepare(self, topic: BenchTopic) -> None:
        await redis.Raw(topic).prepare()

    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float:
        argv = [*_options(topic), "-n", str(count), "-c", "1", "-P", str(redis.BATCH), "--csv"]
        argv += ["XADD", topic.name, "*", "data", "x" * size]
        return requests(await _run(argv))

    async def consume(self, topic: BenchTopic, *, count: int) -> None:
        return None


def requests(report: str) -> float:
    """Return the requests/s from the table."""
    lines = [line for line in report.splitlines() if line.startswith('"')]
    for row in csv.DictReader(lines):
        if rate := row.get("rps"):
            return float(rate)
    raise ToolFailed(f"{_PROGRAM} printed no rate: {report[-300:]}")


def _program() -> tuple[Root, str] | None:
    """Return root and path of the program, on the host or in the server's tree."""
    if path := which(_PROGRAM):
        return HOST_ROOT, path
    tree = Root(state.home() / "trees" / f"{SUITE}-servers")
    inside = f"/usr/bin/{_PROGRAM}"
    return (tree, inside) if tree.path(inside).exists() else None


async def _run(argv: list[str]) -> str:
    found = _program()
    if found is None:
        raise ToolFailed(f"{_PROGRAM} is not installed")
    root, path = found
    with tempfile.TemporaryDirectory() as folder:
        return await report_of(root.command([path, *argv], shared=Path(folder)))


def _options(topic: BenchTopic) -> list[str]:
    url = URL.parse(topic.url)
    host, port = url.hosts[0]
    options = ["-h", host, "-p", str(port or _PORT)]
    if url.username:
        options += ["--user", url.username]
    if url.password:
        options += ["-a", url.password]
    if database := url.path.strip("/"):
        options += ["--dbnum", database]
    return options
