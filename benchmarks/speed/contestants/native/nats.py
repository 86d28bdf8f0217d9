"""A small program on nats.go, built from `nats_go/`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from brokers import state
from brokers.errors import say
from brokers.tools import output, run, version, which

from ...contestant import BenchTopic
from .. import nats
from ..address import plain
from ..durability import DURABILITY
from .tool import Native, ToolFailed, report_of

_SOURCE = Path(__file__).parent / "nats_go"
# The first Go that can download the toolchain a module requires.
_LEAST_GO = (1, 21)
_RATE = re.compile(r"([\d.]+) messages/s")


class NatsGo(Native):
    """One producer, one consumer, in Go."""

    backend = "nats"
    durability = DURABILITY["nats"]
    how = "nats.go: PublishAsync(), at most 4000 unconfirmed, no headers; Messages(), Ack() each"

    @classmethod
    def missing(cls) -> str | None:
        go = which("go")
        if go is None or version(output([go, "version"])) < _LEAST_GO:
            return f"Go {'.'.join(map(str, _LEAST_GO))} or newer"
        return None

    def install(self) -> None:
        """Build the program if its source is newer than the binary."""
        with state.locked(state.installing("nats-go"), "nats-go") as lock:
            if _is_new():
                return
            say("nats-go: building")
            _binary().parent.mkdir(parents=True, exist_ok=True)
            run(
                [which("go") or "go", "build", "-trimpath", "-o", str(_binary()), "."],
                what="building nats-go",
                log=state.home() / "logs" / "nats-go.log",
                env={**os.environ, "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"},
                cwd=_SOURCE,
                lock=lock,
            )

    async def prepare(self, topic: BenchTopic) -> None:
        await nats.Raw(topic).prepare()

    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float:
        argv = [str(_binary()), "publish", plain(topic.url), topic.name, str(count), str(size)]
        return told(await report_of(argv))

    async def consume(self, topic: BenchTopic, *, count: int) -> float:
        argv = [str(_binary()), "consume", plain(topic.url), nats.stream_of(topic), topic.group]
        return told(await report_of([*argv, str(count)]))


def told(report: str) -> float:
    """Return the rate printed by the program."""
    found = _RATE.findall(report)
    if not found:
        raise ToolFailed(f"nats-go printed no rate: {report[-300:]}")
    return float(found[-1])


def _binary() -> Path:
    return state.home() / "nats-go" / "nats-go"


def _is_new() -> bool:
    files = [path.stat().st_mtime for path in _SOURCE.iterdir()]
    return _binary().exists() and _binary().stat().st_mtime > max(files)
