"""Flame graphs of publishing to and consuming from a broker."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from anymq import AnymqError, connect

from .cleanup import delete_topic
from .contestant import BenchTopic, Contestant
from .contestants import contestants
from .measurement import wait_for_consumers
from .protocol import Job
from .targets import backend_of
from .workers import JobFailed, WorkerProcess

JOB_TIMEOUT = 600.0
"""Seconds."""
PROFILER_GRACE = 60.0
"""Seconds that the profiler may take to write its graph."""


def add_to(commands: Any) -> None:
    """Add the command to the parsers of `python -m benchmarks`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "profile", help="write flame graphs of publish and consume", description=__doc__
    )
    parser.add_argument("url", metavar="URL", help="broker to use; the test topic is deleted")
    parser.add_argument(
        "--messages", type=int, default=200_000, help="messages to publish and to consume (200000)"
    )
    parser.add_argument("--contestant", default="anymq", help="contestant to profile (anymq)")
    parser.add_argument("--rate", type=int, default=200, help="samples a second (200)")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), metavar="FOLDER")
    parser.set_defaults(run=main)


def main(options: argparse.Namespace) -> int:
    """Write the flame graphs; return 1 if that failed."""
    profiler = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or "py-spy"
    options.output.mkdir(parents=True, exist_ok=True)
    wrapper = [profiler, "record", "--rate", str(options.rate), "--function", "--gil", "--output"]
    with tempfile.TemporaryDirectory(prefix="anymq-bench-") as folder:
        profile = _Profile(options, Path(folder), wrapper)
        try:
            written = asyncio.run(profile.run())
        except (AnymqError, JobFailed, OSError) as error:
            print(f"profile: {error}", file=sys.stderr)
            for log in sorted(Path(folder).glob("*.log")):
                print(*log.read_text().splitlines()[-3:], sep="\n", file=sys.stderr)
            return 1
    for path in written:
        print(path)
    return 0


class _Profile:
    def __init__(self, options: argparse.Namespace, folder: Path, wrapper: Sequence[str]) -> None:
        self._options = options
        self._folder = folder
        self._wrapper = wrapper
        # Only a named memory broker is shared by several connections.
        url = "memory://profile" if options.url == "memory://" else options.url
        self._topic = BenchTopic(url=url, name=f"bench-{uuid4().hex[:8]}")

    async def run(self) -> list[Path]:
        """Publish, then consume; in separate processes if the backend can be shared."""
        contestant = self._contestant()
        alone = contestant.backend == "memory"
        names = ["both", "both"] if alone else ["publish", "consume"]
        paths = {name: self._options.output / f"{contestant.backend}-{name}.svg" for name in names}
        workers = {
            name: WorkerProcess(name, self._folder, [*self._wrapper, str(path), "--"])
            for name, path in paths.items()
        }
        producer, consumer = (workers[name] for name in names)
        try:
            await self._publish(contestant, producer, consumer if alone else None)
            await self._consume(contestant, consumer)
        finally:
            await asyncio.gather(*(worker.aclose(PROFILER_GRACE) for worker in workers.values()))
            if not alone:
                await self._clean(contestant)
        return list(paths.values())

    async def _clean(self, contestant: type[Contestant]) -> None:
        with suppress(AnymqError):  # an unreachable broker has already been reported
            async with connect(self._options.url) as broker:
                await delete_topic(broker, contestant.backend, self._topic)

    async def _publish(
        self, contestant: type[Contestant], producer: WorkerProcess, alone: WorkerProcess | None
    ) -> None:
        if alone is not None:
            await alone.run(self._job(contestant, "prepare"))
            await alone.run(self._job(contestant, "publish"), JOB_TIMEOUT)
            return
        # Preparation runs in a worker without a profiler, so it is not in the graph.
        helper = WorkerProcess("prepare", self._folder)
        try:
            await helper.run(self._job(contestant, "prepare"))
        finally:
            await helper.aclose()
        await producer.run(self._job(contestant, "publish"), JOB_TIMEOUT)
        await producer.aclose(PROFILER_GRACE)

    async def _consume(self, contestant: type[Contestant], consumer: WorkerProcess) -> None:
        handle = await consumer.submit(self._job(contestant, "consume"))
        handle.go()
        (done,) = await wait_for_consumers([handle], self._options.messages)
        if done.messages < self._options.messages:
            raise JobFailed(
                f"consume ended early: {done.messages} of {self._options.messages} messages"
            )

    def _job(self, contestant: type[Contestant], task: str) -> Job:
        settings = {
            "task": task,
            "backend": contestant.backend,
            "contestant": contestant.name,
            "topic": self._topic,
            "count": self._options.messages,
        }
        return Job.model_validate(settings)

    def _contestant(self) -> type[Contestant]:
        found = {one.name: one for one in contestants(backend_of(self._options.url))}
        if self._options.contestant not in found:
            raise JobFailed(
                f"no contestant {self._options.contestant!r}; choose one of {', '.join(found)}"
            )
        return found[self._options.contestant]
