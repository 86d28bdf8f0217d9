"""Where measurements take place: one backend, and the processes that play on it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import anymq

from .contestant import Contestant, Place
from .contestants.anymq import STORE_VARIABLE
from .crew import WorkerProcess
from .servers import Target
from .sweep import STORED, sweep, sweep_store
from .workloads import Workload


class Stage:
    """A backend with the workers that play on it; use it as a context.

    `token` is in the names of everything that is made there.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self._folder = folder
        self._workers: dict[str, WorkerProcess] = {}
        self._stack = AsyncExitStack()
        self._broker: anymq.Broker | None = None
        self.token = f"bench-{uuid4().hex[:8]}"
        self._runs = 0

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
        await self.dismiss()
        await self._stack.aclose()

    async def dismiss(self) -> None:
        """End all workers; the next job starts new ones."""
        await asyncio.gather(*(worker.aclose() for worker in self._workers.values()))
        self._workers.clear()

    def worker(self, contestant: type[Contestant], role: str) -> WorkerProcess:
        """Return the process for a role of a contestant; where only one can be, always that."""
        name = f"{self.target.backend}-{contestant.name}-{role if self.target.shared else 'both'}"
        name = name.replace(" ", "-")
        if name not in self._workers:
            self._workers[name] = WorkerProcess(name, self._folder)
        return self._workers[name]

    def workers(self, contestant: type[Contestant], consumers: int) -> list[WorkerProcess]:
        """Return the producer's process, then those of the consumers."""
        roles = ["producer", *(f"consumer-{number}" for number in range(consumers))]
        return [self.worker(contestant, role) for role in roles]

    def place(self, workload: Workload) -> Place:
        """Return a topic that nobody has used before."""
        self._runs += 1
        return Place(
            url=self.target.url,
            topic=f"{self.token}-{self._runs}",
            group=f"{self.token}-{self._runs}-group",
            partitions=workload.partitions,
            ordered=workload.ordered,
        )

    async def clear(self, contestant: type[Contestant], place: Place) -> None:
        """Remove what a run has left."""
        await self.sweep(place)
        if contestant.name == STORED:
            await sweep_store(os.environ.get(STORE_VARIABLE, self.target.url), place)
        if not self.target.shared:
            self.worker(contestant, "both").forget()

    async def sweep(self, place: Place) -> None:
        """Remove what is left at the broker."""
        if self._broker is not None:
            await sweep(self._broker, self.target.backend, place)
