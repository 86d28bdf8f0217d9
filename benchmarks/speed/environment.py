"""Where measurements take place: one backend, and the processes that play on it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import anymq

from .cleanup import USES_STORE, delete_claims, delete_topic
from .contestant import BenchTopic, Contestant
from .contestants.anymq import STORE_VARIABLE
from .fork_server import ForkServer
from .protocol import Job
from .targets import Target
from .workers import JobFailed, WorkerProcess
from .workloads import Workload

CONCURRENT_TOPICS = 16
"""Places that are made or cleared side by side."""

Pairing = tuple[type[Contestant], Workload]
TopicKind = tuple[str, int, bool]
"""What a topic is good for: who made it, its partitions, whether it is ordered."""


class Environment:
    """A backend with the workers that play on it; use it as a context.

    `token` is in the names of everything that is made there. With `tidy` that is deleted again;
    nobody misses it on a server that is wiped afterwards.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        *,
        fork_server: ForkServer | None = None,
        deletes: bool = True,
        python: str = sys.executable,
    ) -> None:
        self.target = target
        self._folder = folder
        self._fork_server = fork_server
        self._deletes = deletes
        self._python = python
        self._workers: dict[str, WorkerProcess] = {}
        self._stack = AsyncExitStack()
        self._broker: anymq.Broker | None = None
        self.token = f"bench-{uuid4().hex[:8]}"
        self._topics = 0
        self._prepared: dict[TopicKind, list[tuple[type[Contestant], BenchTopic]]] = defaultdict(
            list
        )
        self._discarded: list[tuple[type[Contestant], BenchTopic]] = []

    async def __aenter__(self) -> Self:
        if self.target.shared:
            self._broker = await self._stack.enter_async_context(anymq.connect(self.target.url))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(worker.aclose() for worker in self._workers.values()))
        self._workers.clear()
        self._discarded += [one for unused in self._prepared.values() for one in unused]
        await self.clean_up()
        await self._stack.aclose()

    def worker(self, contestant: type[Contestant], role: str) -> WorkerProcess:
        """Return the process for a role of a contestant; where only one can be, always that."""
        name = f"{self.target.backend}-{contestant.name}-{role if self.target.shared else 'both'}"
        name = name.replace(" ", "-")
        if name not in self._workers:
            self._workers[name] = WorkerProcess(
                name, self._folder, fork_server=self._fork_server, python=self._python
            )
        return self._workers[name]

    def workers(self, contestant: type[Contestant], consumers: int) -> list[WorkerProcess]:
        """Return the producer's process, then those of the consumers."""
        roles = ["producer", *(f"consumer-{number}" for number in range(consumers))]
        return [self.worker(contestant, role) for role in roles]

    def new_topic(self, workload: Workload) -> BenchTopic:
        """Return a topic that nobody has used before."""
        self._topics += 1
        return BenchTopic(
            url=self.target.url,
            name=f"{self.token}-{self._topics}",
            group=f"{self.token}-{self._topics}-group",
            partitions=workload.partitions,
            ordered=workload.ordered,
        )

    async def prepare(self, pairings: Sequence[Pairing]) -> None:
        """Make topics and groups for these side by side, so that nobody has to wait for his."""
        if self.target.shared:
            limit = asyncio.Semaphore(CONCURRENT_TOPICS)
            await asyncio.gather(*(self._prepare(pairing, limit) for pairing in pairings))

    async def _prepare(self, pairing: Pairing, limit: asyncio.Semaphore) -> None:
        async with limit:
            with suppress(JobFailed):  # whose pairing it is meets with the same, and says so
                topic = await self._create_topic(*pairing)
                self._prepared[_kind(*pairing)].append((pairing[0], topic))

    async def prepared_topic(self, contestant: type[Contestant], workload: Workload) -> BenchTopic:
        """Return a topic of which topic and group are made."""
        if unused := self._prepared[_kind(contestant, workload)]:
            return unused.pop()[1]
        return await self._create_topic(contestant, workload)

    async def _create_topic(self, contestant: type[Contestant], workload: Workload) -> BenchTopic:
        topic = self.new_topic(workload)
        job = Job(
            task="prepare", backend=contestant.backend, contestant=contestant.name, topic=topic
        )
        try:
            await self.worker(contestant, "producer").run(job)
        except JobFailed:
            self.discard(contestant, topic)
            raise
        return topic

    def discard(self, contestant: type[Contestant], topic: BenchTopic) -> None:
        """Say that nobody needs it any more."""
        self._discarded.append((contestant, topic))
        if not self.target.shared:
            self.worker(contestant, "both").reset()

    async def clean_up(self) -> None:
        """Remove what was discarded so far."""
        discarded, self._discarded = self._discarded, []
        if self._deletes:
            limit = asyncio.Semaphore(CONCURRENT_TOPICS)
            await asyncio.gather(*(self._clean_up_one(*one, limit) for one in discarded))

    async def _clean_up_one(
        self, contestant: type[Contestant], topic: BenchTopic, limit: asyncio.Semaphore
    ) -> None:
        async with limit:
            await self.delete_topic(topic)
            if contestant.name == USES_STORE:
                await delete_claims(os.environ.get(STORE_VARIABLE, self.target.url), topic)

    async def delete_topic(self, topic: BenchTopic) -> None:
        """Remove what is discarded at the broker."""
        if self._broker is not None:
            await delete_topic(self._broker, self.target.backend, topic)


def _kind(contestant: type[Contestant], workload: Workload) -> TopicKind:
    return contestant.name, workload.partitions, workload.ordered
