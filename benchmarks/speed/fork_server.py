"""A fork server: a process that has imported all libraries and forks workers in milliseconds.

It runs neither threads nor an event loop, because forking a process that does is unsafe. Full runs
do without it and start each worker separately, so that resident memory is the worker's own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Self

from .contestants import BACKENDS, contestants
from .worker import LONGEST_LINE
from .worker import main as run_worker

ROOT = Path(__file__).parents[2]
REQUEST = struct.Struct("<cI")
FORK, KILL = b"f", b"k"
DONE, FAILED = b".", b"!"
FILES = 3
"""File descriptors sent with a fork request: standard input, output and errors."""


class ForkedWorker:
    """A forked worker, with the interface of `asyncio.subprocess.Process`."""

    def __init__(
        self,
        fork_server: ForkServer,
        number: int,
        stdin: asyncio.WriteTransport,
        stdout: asyncio.StreamReader,
        ended: asyncio.Event,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._ended = ended
        self._fork_server = fork_server
        self._number = number

    @property
    def returncode(self) -> int | None:
        """0 once the worker has closed its output, which it does at its end; None before."""
        return 0 if self._ended.is_set() else None

    def kill(self) -> None:
        """Kill the worker."""
        self.stdin.close()
        self._fork_server.kill(self._number)

    async def wait(self) -> int:
        """Wait until the worker has ended; return 0."""
        await self._ended.wait()
        return 0


class _WorkerOutput(asyncio.StreamReaderProtocol):
    """The output of a worker; sets `ended` when it closes."""

    def __init__(self, reader: asyncio.StreamReader, ended: asyncio.Event) -> None:
        super().__init__(reader)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended.set()


class ForkServer:
    """The fork server as its user controls it, a context manager.

    It may be used from several event loops, one after the other.
    """

    def __init__(self) -> None:
        self._socket, child_end = socket.socketpair()
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(child_end.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[child_end.fileno()],
                cwd=ROOT,
                start_new_session=True,
            )
        self._forked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    async def fork(self, log: int) -> ForkedWorker:
        """Fork a worker whose standard error is the file descriptor `log`."""
        self._forked += 1
        loop = asyncio.get_running_loop()
        (child_stdin, write_end), (read_end, child_stdout) = os.pipe(), os.pipe()
        try:
            self._request(FORK, self._forked, [child_stdin, child_stdout, log])
        finally:
            os.close(child_stdin)
            os.close(child_stdout)
        reader, ended = asyncio.StreamReader(limit=LONGEST_LINE), asyncio.Event()
        stdin, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(write_end, "wb", 0)
        )
        await loop.connect_read_pipe(
            lambda: _WorkerOutput(reader, ended), os.fdopen(read_end, "rb", 0)
        )
        return ForkedWorker(self, self._forked, stdin, reader, ended)

    def kill(self, number: int) -> None:
        """Kill a worker unless it has ended."""
        self._request(KILL, number, [])

    def _request(self, verb: bytes, number: int, files: list[int]) -> None:
        """Send a request and block for its answer, which takes milliseconds."""
        try:
            socket.send_fds(self._socket, [REQUEST.pack(verb, number)], files)
            answer = self._socket.recv(1)
        except OSError as error:
            raise OSError(f"fork server failed: {error}") from error
        if answer != DONE:
            raise OSError("fork server cannot fork: it runs more than one thread")


class _Children:
    """The children of the fork server that have not been reaped."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}

    def fork(self, number: int, files: list[int], requests: socket.socket) -> None:
        pid = os.fork()
        if pid:
            self._pids[number] = pid
            return
        code = 1
        try:
            requests.close()
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for place, file in enumerate(files):
                os.dup2(file, place)
                os.close(file)
            run_worker()
            code = 0
        finally:
            os._exit(code)

    def kill(self, number: int) -> None:
        if pid := self._pids.pop(number, 0):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def reap(self) -> None:
        """Remove children that have ended, because their pids may be reused."""
        for number, pid in list(self._pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._pids[number]


def load() -> None:
    """Import the libraries of all workers, except those that start threads on import."""
    for backend in BACKENDS:
        import_module(f"anymq_{backend}")
        contestants(backend)
    with suppress(ImportError):
        import_module("uvloop")


def main(descriptor: int) -> None:
    """Serve requests until the other end of the socket is closed."""
    load()
    gc.collect()
    gc.freeze()
    children = _Children()
    with socket.socket(fileno=descriptor) as requests:
        while True:
            data, files, _, _ = socket.recv_fds(requests, REQUEST.size, FILES)
            if len(data) < REQUEST.size:
                return
            verb, number = REQUEST.unpack(data)
            children.reap()
            can_fork = threading.active_count() == 1
            if verb == KILL:
                children.kill(number)
            elif can_fork:
                children.fork(number, list(files), requests)
            for file in files:
                os.close(file)
            requests.sendall(DONE if can_fork else FAILED)


if __name__ == "__main__":
    main(int(sys.argv[1]))
