"""`Database`: one SQLite file, used from the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from anymq.driver import Closed

from .file.connection import Connection, check_version
from .file.notifications import CommitPoller
from .file.worker import Task, Worker

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class Database:
    """One SQLite file, one connection to it, and the thread that owns the connection.

    Jobs are functions of the connection. `write` jobs that are queued at the same time share one
    transaction, so they wait for the disk once. A job must be safe to repeat, and use nothing but
    the connection. When a shared transaction fails, each of its jobs runs again in a transaction of
    its own, so that a failing job affects no other. A transaction that finds the file busy is
    repeated for up to `busy_timeout` seconds.

    `path` is the file's absolute path. `connection` belongs to the thread. After a failure that
    makes the connection unusable, the next job opens another one.
    """

    def __init__(self, path: Path, synchronous: str, busy_timeout: float, poll: float) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._closed = False
        self._poller = CommitPoller(poll)
        self._on_change: Callable[[], None] | None = None
        self.connection = Connection(path, synchronous)
        self._worker = Worker(
            self.connection,
            self._poller,
            busy_timeout,
            done=lambda tasks: self._call(lambda: _resolve(tasks)),
            changed=lambda: self._call(self._changed),
            opened=lambda: self._call(self._start_polling),
            finished=lambda: self._call(self._finish),
        )

    @classmethod
    async def open(
        cls, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 5.0, poll: float = 0.01
    ) -> Self:
        """Open `path`, creating it if it does not exist, and return once it has been read."""
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
        """Return after one successful read."""
        await self.read(lambda db: db.execute("SELECT count(*) FROM topics").fetchone())

    async def read(self, job: Job[T]) -> T:
        """Return `job(connection)`, run without a transaction."""
        return await self.submit(job, writes=False)

    async def write(self, job: Job[T], *, durable: bool = True) -> T:
        """Return `job(connection)` once its transaction is committed, or raise what it raised.

        If not `durable`, the commit does not wait for the disk, and a power cut may undo it.
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
        """Queue `job` and return its future. Cancelling the future does not stop the job.

        `unless` runs first, and only reads. If it returns a value other than None, that is the
        result.
        """
        if self._closed:
            raise Closed(f"{self.path} has been closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._worker.put(Task(job, future, writes=writes, durable=durable, unless=unless))
        return future

    def post(self, job: Job[object], *, writes: bool) -> None:
        """Queue `job` without waiting for it. Do nothing if the file is closed."""
        if not self._closed:
            self._worker.put(Task(job, None, writes=writes, durable=False))

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each commit of another connection from now on."""
        first = self._on_change is None
        self._on_change = on_change
        if first:
            self._start_polling()

    async def aclose(self) -> None:
        """Run the queued jobs, then close the file. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._poller.close()
            self._worker.stop()
        await asyncio.shield(self._finished)

    def _start_polling(self) -> None:
        # Called for every new connection, because the write-ahead log may be another file then.
        if self._on_change is not None and not self._closed:
            self._poller.start(self.path, self._poll_soon)
            self._poll_soon()

    def _poll_soon(self) -> None:
        """Make the thread check again when its next poll is due."""
        self.post(_do_nothing, writes=False)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _call(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed, and no caller waits
            self._worker.stop()


def _do_nothing(_: sqlite3.Connection) -> None:
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
