"""`Worker`: the thread that owns a connection, and runs jobs in its transactions."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import is_busy
from .connection import Connection
from .notifications import CommitPoller

_TRANSACTION_SECONDS = 0.02
"""How long a transaction takes in queued jobs, while other processes wait for it."""
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.0002, 0.002


class Task:
    """A job for the thread, then its result or error.

    It runs in a transaction if it `writes`. The transaction is forced to disk if the task is
    `durable`. If `unless` returns a value other than None, that is the result, and the job does not
    run.
    """

    __slots__ = ("durable", "error", "future", "job", "queued_at", "result", "unless", "writes")

    def __init__(
        self,
        job: Callable[[sqlite3.Connection], Any],
        future: asyncio.Future[Any] | None,
        *,
        writes: bool,
        durable: bool = True,
        unless: Callable[[sqlite3.Connection], Any] | None = None,
    ) -> None:
        self.job = job
        self.future = future
        self.writes = writes
        self.durable = durable
        self.unless = unless
        self.queued_at = time.monotonic()
        self.result: Any = None
        self.error: BaseException | None = None

    def is_idle(self, db: sqlite3.Connection) -> bool:
        """Whether `unless` has given the result."""
        self.result = None if self.unless is None else self.unless(db)
        return self.result is not None

    def run(self, db: sqlite3.Connection) -> None:
        """Run the job, unless there is nothing to write, and keep the result."""
        if not self.is_idle(db):
            self.result = self.job(db)


class Worker:
    """Runs tasks in their order, in a thread, and passes them to `done`.

    It calls `changed` after commits of other connections, `opened` whenever it has opened the file,
    and `finished` at its end. All four are called in the thread.
    """

    def __init__(
        self,
        connection: Connection,
        poller: CommitPoller,
        busy_timeout: float,
        *,
        done: Callable[[Sequence[Task]], None],
        changed: Callable[[], None],
        opened: Callable[[], None],
        finished: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._poller = poller
        self._busy_timeout = busy_timeout
        self._done = done
        self._changed = changed
        self._opened = opened
        self._finished = finished
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._postponed: Task | None = None
        self._stopping = threading.Event()
        self._generation = 0
        name = f"anymq {connection.path.name}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, task: Task) -> None:
        """Queue `task`."""
        self._queue.put(task)

    def stop(self) -> None:
        """Run the queued tasks without waiting for a busy file, then close it and end."""
        self._stopping.set()
        self._queue.put(None)

    # In the thread.

    def _main(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._done(self._perform(task))
        finally:
            self._connection.drop()
            self._finished()

    def _next(self) -> Task | None:
        task, self._postponed = self._postponed, None
        if task is not None:
            return task
        while True:
            wait = self._poller.wait()
            if wait is not None and wait <= 0:
                self._poll()
                continue
            try:
                return self._queue.get(timeout=wait)
            except queue.Empty:
                continue

    def _poll(self) -> None:
        db = self._connection.peek()
        try:
            if db is None:
                self._poller.postpone()
            elif self._poller.poll(db):
                self._changed()
        except sqlite3.Error as error:
            # The next task fails as well, and reports the error to its caller.
            self._connection.check(error)
            self._poller.postpone()

    def _connect(self) -> sqlite3.Connection:
        db = self._connection.get()
        if self._connection.generation != self._generation:
            self._generation = self._connection.generation
            self._poller.forget_version()
            self._opened()
        return db

    def _perform(self, task: Task) -> Sequence[Task]:
        """Run a task, and those that share its transaction; return all of them."""
        if task.writes and task.unless is None:
            return self._transaction(task)
        idle = False

        def read() -> None:
            nonlocal idle
            db = self._connect()
            if not task.writes:
                task.run(db)
            else:
                idle = task.is_idle(db)

        task.error = self._try(task, read)
        if task.writes and not idle and task.error is None:
            return self._transaction(task)
        return [task]

    def _transaction(self, first: Task) -> Sequence[Task]:
        """Run `first` and the tasks queued meanwhile in one transaction; return all of them."""
        tasks = [first]
        try:
            error = self._try(first, partial(self._commit, tasks, shared=True))
            if error is None:
                return tasks
            for task in tasks:
                task.error = error
                if len(tasks) > 1 and not is_busy(error):
                    task.error = self._try(task, partial(self._commit, [task], shared=False))
            return tasks
        finally:
            self._connection.cancel_lock()

    def _commit(self, tasks: list[Task], *, shared: bool) -> None:
        db = self._connect()
        lock = self._connection.lock()
        lock.acquire()
        try:
            self._connection.force(tasks[0].durable)
            db.execute("BEGIN IMMEDIATE")
            try:
                self._run(db, tasks, shared=shared)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:  # some errors roll back by themselves
                    db.execute("ROLLBACK")
        finally:
            lock.release()

    def _run(self, db: sqlite3.Connection, tasks: list[Task], *, shared: bool) -> None:
        end = time.monotonic() + _TRANSACTION_SECONDS
        for task in tasks:
            task.run(db)
        while shared and time.monotonic() < end:
            following = self._following(durable=tasks[0].durable)
            if following is None:
                return
            tasks.append(following)
            following.run(db)

    def _following(self, *, durable: bool) -> Task | None:
        """Return the next queued task if it may share the transaction."""
        if self._postponed is not None or self._queue.empty():
            return None
        following = self._queue.get()
        if following is None:
            self._queue.put(None)
        elif following.writes and following.durable and not durable:
            self._postponed = following
        else:
            return following
        return None

    def _try(self, task: Task, action: Callable[[], None]) -> BaseException | None:
        """Run `action`, repeating it while the file is busy; return its error.

        The timeout counts from the time when `task` was queued, so that all queued callers wait
        equally long. SQLite's own busy handler sleeps up to 100 ms and cannot be interrupted.
        """
        deadline = task.queued_at + self._busy_timeout
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                action()
            except BaseException as error:
                if not is_busy(error) or time.monotonic() >= deadline or self._stopping.wait(pause):
                    self._connection.check(error)
                    return error
                pause = min(pause * 1.5, _LAST_RETRY_SECONDS)
            else:
                return None
