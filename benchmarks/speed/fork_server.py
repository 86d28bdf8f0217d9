"""A process that has loaded everything and forks workers, so that each starts in milliseconds.

It never has a thread or an event loop of its own: a fork of either is not safe. Where nothing can
be forked, and where a worker's memory is to be its own alone, workers are started one by one.
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
from .worker import main as work

ROOT = Path(__file__).parents[2]
REQUEST = struct.Struct("<cI")
FORK, KILL = b"f", b"k"
DONE, FAILED = b".", b"!"
FILES = 3
"""What a worker gets: standard input, output and errors."""


class ForkedWorker:
    """A worker that the fork server started, as `asyncio.subprocess.Process` shows its own."""

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
        """None as long as it lives: whoever has ended says nothing any more."""
        return 0 if self._ended.is_set() else None

    def kill(self) -> None:
        """End it by force."""
        self.stdin.close()
        self._fork_server.kill(self._number)

    async def wait(self) -> int:
        """Return when it has ended."""
        await self._ended.wait()
        return 0


class _WorkerOutput(asyncio.StreamReaderProtocol):
    """What a worker says, to its end."""

    def __init__(self, reader: asyncio.StreamReader, ended: asyncio.Event) -> None:
        super().__init__(reader)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended.set()


class ForkServer:
    """Use it as a context, from one event loop after the other."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
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
        """Start a worker whose errors go to the file `log`."""
        self._forked += 1
        loop = asyncio.get_running_loop()
        (their_in, ours_out), (ours_in, their_out) = os.pipe(), os.pipe()
        try:
            self._ask(FORK, self._forked, [their_in, their_out, log])
        finally:
            os.close(their_in)
            os.close(their_out)
        reader, ended = asyncio.StreamReader(limit=LONGEST_LINE), asyncio.Event()
        stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours_out, "wb", 0))
        await loop.connect_read_pipe(
            lambda: _WorkerOutput(reader, ended), os.fdopen(ours_in, "rb", 0)
        )
        return ForkedWorker(self, self._forked, stdin, reader, ended)

    def kill(self, number: int) -> None:
        """End a worker by force, unless it has ended."""
        self._ask(KILL, number, [])

    def _ask(self, verb: bytes, number: int, files: list[int]) -> None:
        """Have it do this, and wait for it: nothing else goes on in these milliseconds."""
        try:
            socket.send_fds(self._socket, [REQUEST.pack(verb, number)], files)
            answer = self._socket.recv(1)
        except OSError as error:
            raise OSError(f"the process that forks workers: {error}") from error
        if answer != DONE:
            raise OSError("the process that forks workers could not do so")


class _Children:
    """The children of the fork server that have not been reaped."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}

    def fork(self, number: int, files: list[int], ours: socket.socket) -> None:
        pid = os.fork()
        if pid:
            self._pids[number] = pid
            return
        code = 1
        try:
            ours.close()
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for place, file in enumerate(files):
                os.dup2(file, place)
                os.close(file)
            work()
            code = 0
        finally:
            os._exit(code)

    def kill(self, number: int) -> None:
        if pid := self._pids.pop(number, 0):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def reap(self) -> None:
        """Note who has ended by itself: its number may soon be another process's."""
        for number, pid in list(self._pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._pids[number]


def load() -> None:
    """Import all that workers need, but what starts threads when it is imported."""
    for backend in BACKENDS:
        import_module(f"anymq_{backend}")
        contestants(backend)
    with suppress(ImportError):
        import_module("uvloop")


def main(descriptor: int) -> None:
    """Fork workers until whoever asks for them is gone."""
    load()
    gc.collect()
    gc.freeze()
    children = _Children()
    with socket.socket(fileno=descriptor) as asked:
        while True:
            data, files, _, _ = socket.recv_fds(asked, REQUEST.size, FILES)
            if len(data) < REQUEST.size:
                return
            verb, number = REQUEST.unpack(data)
            children.reap()
            fit = threading.active_count() == 1
            if verb == KILL:
                children.kill(number)
            elif fit:
                children.fork(number, list(files), asked)
            for file in files:
                os.close(file)
            asked.sendall(DONE if fit else FAILED)


if __name__ == "__main__":
    main(int(sys.argv[1]))
