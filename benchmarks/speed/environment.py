"""The environment of measurements: one backend and the worker processes that use it."""

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
"""Topics created or deleted concurrently."""

Pairing = tuple[type[Contestant], Workload]
TopicKind = tuple[str, int, bool]
"""Contestant that created a topic, its partitions, and whether it is ordered."""


class Environment:
    """A backend and the workers of its contestants, as an async context manager.

    The names of all topics and groups contain `token`. With `deletes` they are deleted after use,
    which is unnecessary on a server that is reset anyway. Workers run on the interpreter `python`.
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
        """Return the worker for a role; on a backend of one process, one worker has both."""
        name = f"{self.target.backend}-{contestant.name}-{role if self.target.shared else 'both'}"
        name = name.replace(" ", "-")
        if name not in self._workers:
            self._workers[name] = WorkerProcess(
                name, self._folder, fork_server=self._fork_server, python=self._python
            )
        return self._workers[name]

    def workers(self, contestant: type[Contestant], consumers: int) -> list[WorkerProcess]:
        """Return the worker of the producer, followed by those of the consumers."""
        roles = ["producer", *(f"consumer-{number}" for number in range(consumers))]
        return [self.worker(contestant, role) for role in roles]

    def new_topic(self, workload: Workload) -> BenchTopic:
        """Return a topic with a new name; it is not yet created."""
        self._topics += 1
        return BenchTopic(
            url=self.target.url,
            name=f"{self.token}-{self._topics}",
            group=f"{self.token}-{self._topics}-group",
            partitions=workload.partitions,
            ordered=workload.ordered,
        )

    async def prepare(self, pairings: Sequence[Pairing]) -> None:
        """Create topics and groups for these pairings concurrently, ahead of their measurements."""
        if self.target.shared:
            limit = asyncio.Semaphore(CONCURRENT_TOPICS)
            await asyncio.gather(*(self._prepare(pairing, limit) for pairing in pairings))

    async def _prepare(self, pairing: Pairing, limit: asyncio.Semaphore) -> None:
        async with limit:
            with suppress(JobFailed):  # the measurement will fail and report the same error
                topic = await self._create_topic(*pairing)
                self._prepared[_kind(*pairing)].append((pairing[0], topic))

    async def prepared_topic(self, contestant: type[Contestant], workload: Workload) -> BenchTopic:
        """Return a topic that exists, with its group."""
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
        """Mark `topic` as no longer used; `clean_up` deletes it."""
        self._discarded.append((contestant, topic))
        if not self.target.shared:
            self.worker(contestant, "both").reset()

    async def clean_up(self) -> None:
        """Delete the topics discarded so far."""
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
        """Delete the topic and everything named after it from the broker."""
        if self._broker is not None:
            await delete_topic(self._broker, self.target.backend, topic)


def _kind(contestant: type[Contestant], workload: Workload) -> TopicKind:
    return contestant.name, workload.partitions, workload.ordered
