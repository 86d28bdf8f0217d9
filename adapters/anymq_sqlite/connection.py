"""`Database`: one SQLite file, used from the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from anymq.driver import Closed

from .file.connection import Connection, check_version
from .file.notifications import Changes
from .file.worker import Task, Worker

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class Database:
    """One SQLite file, one connection, one thread that owns it.

    Jobs are functions of the connection. `write` jobs that are queued at the same time share one
    transaction, hence one wait for the disk. A job must be safe to repeat, and touch nothing but
    the connection: when a transaction fails, each of its jobs is run again in one of its own, so
    that a failing job harms no other; and a transaction that finds the file busy is repeated
    until `busy_timeout` seconds are over.

    `path` is the file's absolute path; `connection` belongs to the thread. A connection that broke
    is made anew by the next job.
    """

    def __init__(self, path: Path, synchronous: str, busy_timeout: float, poll: float) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._closed = False
        self._changes = Changes(poll)
        self._on_change: Callable[[], None] | None = None
        self.connection = Connection(path, synchronous)
        self._worker = Worker(
            self.connection,
            self._changes,
            busy_timeout,
            done=lambda tasks: self._call(lambda: _resolve(tasks)),
            changed=lambda: self._call(self._changed),
            opened=lambda: self._call(self._watch),
            finished=lambda: self._call(self._finish),
        )

    @classmethod
    async def open(
        cls, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 5.0, poll: float = 0.01
    ) -> Self:
        """Open `path`, make it if it does not exist, and return when it has been read."""
        check_version()
        self = cls(path, synchronous, busy_timeout, poll)
        self._worker.start()
        try:
            await self.ping()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def ping(self) -> None:
        """Read something."""
        await self.read(lambda db: db.execute("SELECT count(*) FROM topics").fetchone())

    async def read(self, job: Job[T]) -> T:
        """Return `job(connection)`, run outside of a transaction."""
        return await self.submit(job, writes=False)

    async def write(self, job: Job[T], *, durable: bool = True) -> T:
        """Return `job(connection)` once its transaction is committed, or raise what it raised.

        Without `durable`, nobody waits for the disk: a power cut may undo it.
        """
        return await self.submit(job, writes=True, durable=durable)

    def submit(
        self,
        job: Job[T],
        *,
        writes: bool,
        durable: bool = True,
        unless: Job[T | None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue `job` and return its future. Cancelling that does not stop the job.

        Where `unless`, which only reads, returns something but None, that is the result.
        """
        if self._closed:
            raise Closed(f"{self.path} has been closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._worker.put(Task(job, future, writes=writes, durable=durable, unless=unless))
        return future

    def post(self, job: Job[object], *, writes: bool) -> None:
        """Queue `job`; nobody waits for it, and nothing happens once the file is closed."""
        if not self._closed:
            self._worker.put(Task(job, None, writes=writes, durable=False))

    def watch(self, on_change: Callable[[], None]) -> None:
        """From now on call `on_change` after commits of others."""
        first = self._on_change is None
        self._on_change = on_change
        if first:
            self._watch()

    async def aclose(self) -> None:
        """Finish what is queued and close the file. Calling it twice is harmless."""
        if not self._closed:
            self._closed = True
            self._changes.close()
            self._worker.stop()
        await asyncio.shield(self._finished)

    def _watch(self) -> None:
        # Called again with every connection: the log beside the file may be another one.
        if self._on_change is not None and not self._closed:
            self._changes.watch(self.path, self._prod)
            self._prod()

    def _prod(self) -> None:
        """Make the thread ask anew when its next look is due."""
        self.post(_nothing, writes=False)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _call(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._worker.stop()


def _nothing(_: sqlite3.Connection) -> None:
    """Do nothing."""


def _resolve(tasks: Sequence[Task]) -> None:
    for task in tasks:
        if task.future is None or task.future.done():
            continue
        if isinstance(task.error, StopIteration):
            task.future.set_exception(RuntimeError("a job raised StopIteration"))
        elif task.error is not None:
            task.future.set_exception(task.error)
        else:
            task.future.set_result(task.result)
