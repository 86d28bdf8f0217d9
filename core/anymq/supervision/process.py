"""`WorkerProcess`: one worker as its supervisor sees it.

The channel is a pair of sockets. The first line to the worker is its settings, see
`RunSettings.for_worker`. `{"stop": SECONDS}` has it drain, and end at once with 0; `{"ask": N}`
asks for its health. It writes `started`, `failed`, `ended` and answers. Each end notices the death
of the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from ..logs import logger
from ..tasks import supervise

log = logger("anymq.run")

LONGEST_LINE = 2**24
"""The most bytes of an answer."""
LAST_WORDS = 1.0
"""Seconds for which what an ended process has written is read."""

FailureKind = Literal["usage", "transient", "error"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker reports of itself."""

    health: dict[str, Any]
    metrics: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The error for which a worker has ended."""

    text: str
    kind: FailureKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a worker has ended."""

    code: int
    """The exit code; the negative number of the signal that killed it."""
    seconds: float
    """The seconds for which it had listened to its topics."""
    failure: Failure | None
    drained: bool
    """Whether its app has stopped in order."""
    asked: bool
    """Whether it was told to stop, by the supervisor or by a signal."""
    cut_short: int
    """Handlers that were cancelled because they outlasted the drain."""

    @property
    def how(self) -> str:
        """The words for it in a sentence."""
        if self.failure is not None:
            return f"has failed: {self.failure.text}"
        if self.code < 0:
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"has ended with exit code {self.code}"


class WorkerProcess:
    """A running worker."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.started = asyncio.Event()
        """Set when its handlers listen."""
        self.backend: str | None = None
        """The scheme of its broker, once it has started."""
        self._process = process
        self._reader = reader
        self._writer = writer
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[Answer | None]] = {}
        self._failure: Failure | None = None
        self._ended: dict[str, Any] | None = None
        self._listening: float | None = None

    @classmethod
    async def start(cls, spec: dict[str, Any]) -> WorkerProcess:
        """Start a worker with the settings `spec`."""
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = theirs.fileno()
            # A group of its own, so that Ctrl-C in the terminal reaches the supervisor alone.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "anymq.supervision.worker",
                str(inherited),
                pass_fds=(inherited, spec["lock"]),
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        worker = cls(process, reader, writer)
        worker._send(spec)
        return worker

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def stop(self, seconds: float) -> None:
        """Have it drain within `seconds`; with 0 it ends at once, also if it drains already."""
        self._send({"stop": seconds})

    def kill(self) -> None:
        """End it without any cleanup."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ask(self) -> Answer | None:
        """Return its report; None if it has ended."""
        number = next(self._numbers)
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._send({"ask": number})
        try:
            return await future
        finally:
            del self._answers[number]

    async def wait(self) -> Ending:
        """Return when it has ended."""
        reading = supervise(self._read(), name="messages of a worker")
        try:
            code = await self._process.wait()
            # A process that the app has forked may keep the channel open.
            await asyncio.wait({reading}, timeout=LAST_WORDS)
        finally:
            reading.cancel()
            self._writer.close()
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)
        ended, since = self._ended or {}, self._listening
        return Ending(
            code=code,
            seconds=0.0 if since is None else time.monotonic() - since,
            failure=self._failure,
            drained=code == 0 and self._ended is not None,
            asked=bool(ended.get("asked")),
            cut_short=ended.get("cut_short", 0),
        )

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                if line.endswith(b"\n"):
                    self._receive(json.loads(line))

    def _receive(self, message: dict[str, Any]) -> None:
        match message:
            case {"started": {"backend": backend}}:
                self.backend, self._listening = backend, time.monotonic()
                self.started.set()
            case {"failed": failed}:
                self._failure = Failure(failed["text"], failed["kind"])
            case {"ended": ended}:
                self._ended = ended
            case {"answer": number, "health": health, "metrics": metrics}:
                future = self._answers.get(number)
                if future is not None and not future.done():
                    future.set_result(Answer(health, metrics))
            case _:
                log.error("unknown message of a worker: %s", message)

    def _send(self, message: dict[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")
