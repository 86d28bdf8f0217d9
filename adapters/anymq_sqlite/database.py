"""`Database`: one SQLite file behind one thread."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from anymq.errors import AnymqError, Closed, ConnectionLost

from .changes import Changes
from .connection import check_version, connect, identity
from .errors import primary_code

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

# A transaction takes in what is queued meanwhile, but ends after this long: others wait for it.
_TRANSACTION = 0.02
_FIRST_RETRY = 0.0005
_LAST_RETRY = 0.005
# Errors after which the connection is made anew.
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class _Task(Generic[T]):
    """A job on its way through the thread."""

    __slots__ = ("error", "future", "job", "result", "writes")

    def __init__(self, job: Job[T], future: asyncio.Future[T], *, writes: bool) -> None:
        self.job = job
        self.future = future
        self.writes = writes
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """One SQLite file, one connection, one thread that owns it.

    Jobs are functions of the connection. `write` jobs that are queued at the same time share one
    transaction, hence one wait for the disk. A job must be safe to repeat, and touch nothing but
    the connection: when a transaction fails, each of its jobs is run again in one of its own, so
    that a failing job harms no other; and a transaction that finds the file busy is repeated
    until `busy_timeout` seconds are over.

    `path` is the file's absolute path. A connection that broke is made anew by the next job.
    """

    def __init__(self, path: Path, synchronous: str, busy_timeout: float, poll: float) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._changes = Changes(poll)
        self._on_change: Callable[[], None] | None = None
        # The thread's own.
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._main, name=f"anymq {path.name}", daemon=True)

    @classmethod
    async def open(
        cls, path: Path, *, synchronous: str = "FULL", busy_timeout: float = 5.0, poll: float = 0.01
    ) -> Self:
        """Open `path`, make it if it does not exist, and return when it has been read."""
        check_version()
        self = cls(path, synchronous, busy_timeout, poll)
        self._thread.start()
        try:
            await self.read(lambda db: db.execute("SELECT count(*) FROM topics").fetchone())
        except BaseException:
            await self.aclose()
            raise
        return self

    async def read(self, job: Job[T]) -> T:
        """Return `job(connection)`, run outside of a transaction."""
        return await self.submit(job, writes=False)

    async def write(self, job: Job[T]) -> T:
        """Return `job(connection)` once its transaction is committed, or raise what it raised."""
        return await self.submit(job, writes=True)

    def submit(self, job: Job[T], *, writes: bool) -> asyncio.Future[T]:
        """Queue `job` and return its future. Cancelling that does not stop the job."""
        if self._closing.is_set():
            raise Closed(f"{self.path} has been closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Task(job, future, writes=writes))
        return future

    def watch(self, on_change: Callable[[], None]) -> None:
        """From now on call `on_change`, on the loop, after commits of others."""
        self._on_change = on_change
        self._watch()

    def _watch(self) -> None:
        if self._on_change is not None and not self._closing.is_set():
            self._changes.watch(self.path, self._prod)
            self._prod()

    def _prod(self) -> None:
        """Make the thread ask anew when its next look is due."""
        if not self._closing.is_set():
            self.submit(_nothing, writes=False)

    async def aclose(self) -> None:
        """Finish what is queued and close the file. Calling it twice is harmless."""
        if not self._closing.is_set():
            self._closing.set()
            self._changes.close()
            self._queue.put(None)
        await asyncio.shield(self._finished)

    # What follows runs in the thread.

    def _main(self) -> None:
        while (task := self._next()) is not None:
            tasks = self._transaction(task) if task.writes else [self._alone(task)]
            self._call(_resolver(tasks))
        self._disconnect()
        self._call(self._finish)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._queue.put(None)

    def _next(self) -> _Task[Any] | None:
        while True:
            wait = self._changes.wait()
            if wait is not None and wait <= 0:
                self._look()
                continue
            try:
                return self._queue.get(timeout=wait)
            except queue.Empty:
                continue

    def _look(self) -> None:
        try:
            changed = self._changes.look(self._connect())
        except (sqlite3.Error, OSError, AnymqError):
            self._changes.stumble()
            self._disconnect()  # the next job will find out, and has somebody to tell
            return
        if changed and self._on_change is not None:
            self._call(self._on_change)

    def _alone(self, task: _Task[Any]) -> _Task[Any]:
        """Run a job that does not write."""
        try:
            task.result = self._patiently(lambda: task.job(self._connect()))
        except BaseException as error:
            self._failed(task, error)
        return task

    def _transaction(self, first: _Task[Any]) -> Sequence[_Task[Any]]:
        """Run `first`, and what is queued meanwhile, in one transaction; return all of them."""
        tasks = [first]
        try:
            self._patiently(lambda: self._commit(tasks, more=True))
        except BaseException as error:
            self._failed(first, error)
            if len(tasks) > 1:
                for task in tasks:
                    self._transaction_of_one(task)
        return tasks

    def _transaction_of_one(self, task: _Task[Any]) -> None:
        task.error = None
        try:
            self._patiently(lambda: self._commit([task], more=False))
        except BaseException as error:
            self._failed(task, error)

    def _commit(self, tasks: list[_Task[Any]], *, more: bool) -> None:
        db = self._connect()
        db.execute("BEGIN IMMEDIATE")
        try:
            end = time.monotonic() + _TRANSACTION
            for task in tasks:
                task.result = task.job(db)
            while more and not self._queue.empty() and time.monotonic() < end:
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                tasks.append(following)
                following.result = following.job(db)
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _patiently(self, action: Callable[[], T]) -> T:
        """Return `action()`, repeated while the file is busy and `busy_timeout` is not over.

        SQLite's own way of waiting sleeps up to 100 ms at a time and cannot be interrupted.
        """
        deadline = time.monotonic() + self._busy_timeout
        delay = _FIRST_RETRY
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                if self._closing.wait(delay):
                    raise
                delay = min(delay * 1.5, _LAST_RETRY)

    def _connect(self) -> sqlite3.Connection:
        """Return the connection, made anew if need be."""
        if self._connection is None:
            self._connection = connect(self.path, self._synchronous)
            self._identity = identity(self.path)
            self._call(self._watch)  # the log beside the file may be another one
        elif identity(self.path) != self._identity:
            # SQLite would go on with a file that has no name any more: nothing would be kept.
            self._disconnect()
            raise ConnectionLost(f"{self.path} was deleted or replaced while it was open")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _failed(self, task: _Task[Any], error: BaseException) -> None:
        task.error = error
        if isinstance(error, sqlite3.Error) and primary_code(error) in _BROKEN:
            self._disconnect()


def _nothing(_: sqlite3.Connection) -> None:
    """Do nothing."""


def _resolver(tasks: Sequence[_Task[Any]]) -> Callable[[], None]:
    def resolve() -> None:
        for task in tasks:
            task.resolve()

    return resolve
