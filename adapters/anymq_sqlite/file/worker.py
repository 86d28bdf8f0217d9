"""`Worker`: the thread that owns a connection, and its transactions."""

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
from .notifications import Changes

# A transaction takes in what is queued meanwhile, but ends after this long: others wait for it.
_LONGEST = 0.02
_FIRST_RETRY, _LAST_RETRY = 0.0002, 0.002


class Task:
    """A job on its way through the thread, then what became of it.

    It runs in a transaction if it `writes`, which is forced to disk if the task is `durable`. Where
    `unless` returns something, that is the result, and nothing is written.
    """

    __slots__ = ("durable", "error", "future", "job", "queued", "result", "unless", "writes")

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
        self.queued = time.monotonic()
        self.result: Any = None
        self.error: BaseException | None = None

    def is_idle(self, db: sqlite3.Connection) -> bool:
        """Whether there is nothing to write; that is the result then."""
        self.result = None if self.unless is None else self.unless(db)
        return self.result is not None

    def run(self, db: sqlite3.Connection) -> None:
        """Run the job and keep its result."""
        if not self.is_idle(db):
            self.result = self.job(db)


class Worker:
    """Runs tasks, in their order; `done` gets them back, in the thread.

    `changed` is called after commits of other connections, `opened` when the file was opened
    (again), `finished` when the thread ends.
    """

    def __init__(
        self,
        connection: Connection,
        changes: Changes,
        busy_timeout: float,
        *,
        done: Callable[[Sequence[Task]], None],
        changed: Callable[[], None],
        opened: Callable[[], None],
        finished: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._changes = changes
        self._busy_timeout = busy_timeout
        self._done = done
        self._changed = changed
        self._opened = opened
        self._finished = finished
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._held: Task | None = None
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
        """Finish what is queued, without patience for a busy file, close it and end."""
        self._stopping.set()
        self._queue.put(None)

    # The rest runs in the thread.

    def _main(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._done(self._perform(task))
        finally:
            self._connection.drop()
            self._finished()

    def _next(self) -> Task | None:
        held, self._held = self._held, None
        if held is not None:
            return held
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
        db = self._connection.peek()
        try:
            if db is None:
                self._changes.stumble()
            elif self._changes.look(db):
                self._changed()
        except sqlite3.Error as error:
            # The next task will find out too, and has somebody to tell.
            self._connection.check(error)
            self._changes.stumble()

    def _connect(self) -> sqlite3.Connection:
        db = self._connection.get()
        if self._connection.generation != self._generation:
            self._generation = self._connection.generation
            self._changes.forget()
            self._opened()
        return db

    def _perform(self, task: Task) -> Sequence[Task]:
        """Run a task, and perhaps others with it; return all of them."""
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
        """Run `first`, and what is queued meanwhile, in one transaction; return all of them."""
        tasks = [first]
        try:
            error = self._try(first, partial(self._commit, tasks, more=True))
            if error is None:
                return tasks
            for task in tasks:
                task.error = error
                if len(tasks) > 1 and not is_busy(error):
                    task.error = self._try(task, partial(self._commit, [task], more=False))
            return tasks
        finally:
            self._connection.give_up()

    def _commit(self, tasks: list[Task], *, more: bool) -> None:
        db = self._connect()
        lock = self._connection.lock()
        lock.acquire()
        try:
            self._connection.force(tasks[0].durable)
            db.execute("BEGIN IMMEDIATE")
            try:
                self._run(db, tasks, more=more)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:  # some errors have rolled back already
                    db.execute("ROLLBACK")
        finally:
            lock.release()

    def _run(self, db: sqlite3.Connection, tasks: list[Task], *, more: bool) -> None:
        end = time.monotonic() + _LONGEST
        for task in tasks:
            task.run(db)
        while more and time.monotonic() < end:
            following = self._following(durable=tasks[0].durable)
            if following is None:
                return
            tasks.append(following)
            following.run(db)

    def _following(self, *, durable: bool) -> Task | None:
        """Return a task that may share the transaction, if one is queued."""
        if self._held is not None or self._queue.empty():
            return None
        following = self._queue.get()
        if following is None:
            self._queue.put(None)
        elif following.writes and following.durable and not durable:
            self._held = following
        else:
            return following
        return None

    def _try(self, task: Task, action: Callable[[], None]) -> BaseException | None:
        """Run `action`, again while the file is busy; return its error.

        Patience is counted from when `task` was queued, so that it ends for all who wait at once.
        SQLite's own way of waiting sleeps up to 100 ms at a time and cannot be interrupted.
        """
        deadline = task.queued + self._busy_timeout
        pause = _FIRST_RETRY
        while True:
            try:
                action()
            except BaseException as error:
                if not is_busy(error) or time.monotonic() >= deadline or self._stopping.wait(pause):
                    self._connection.check(error)
                    return error
                pause = min(pause * 1.5, _LAST_RETRY)
            else:
                return None
