"""A process in a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.cli.support import arguments_of, environment

PATIENCE = 60.0
"""Seconds after which a terminal that shows nothing fails its test."""


class Terminal:
    """A command in a pseudo-terminal: what it shows, and the keys that are pressed in it."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.shown = ""
        self._master = master

    def until(self, pattern: str) -> re.Match[str]:
        """Return the match of `pattern` in what the terminal shows, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.shown)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.shown!r}"
            assert self._read(left), f"ended without {pattern!r}: {self.shown!r}"
        return found

    def type(self, keys: str) -> None:
        """Press keys; `\\x03` is Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._master, keys.encode())

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.type("\x03")
        return self.end()

    def end(self) -> int:
        """Return the exit code once the process has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, seconds: float) -> bool:
        """Add what comes within `seconds`; False at the end."""
        if not select.select((self._master,), (), (), seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux: the process has closed the terminal.
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """Run `anymq ARGUMENTS` in a terminal; it is killed if the test leaves it running."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        arguments_of(*arguments),
        env=environment(**(env or {})),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_control_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(master)


def _control_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
