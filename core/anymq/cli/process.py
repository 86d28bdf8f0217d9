"""The process of one command: its event loop, Ctrl-C, and a pipe that closes early."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_CLOSED_PIPE = 141
"""The exit codes that a shell shows for SIGINT, SIGTERM and SIGPIPE."""

CLEANUP_SECONDS = 1.5
"""Seconds after Ctrl-C in which a command may settle and disconnect."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM, with the exit code for it."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of `work`. Ctrl-C and SIGTERM cancel it; it then ends at once.

    A command that does not end within `CLEANUP_SECONDS` of the signal, for example because the
    broker no longer answers, is ended without further cleanup.
    """
    with asyncio.Runner() as runner:
        return runner.run(_interruptible(work))


async def _interruptible(work: Coroutine[Any, Any, Any]) -> Any:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[tuple[int, threading.Timer]] = []

    def on_signal(code: int) -> None:
        if received:
            leave(code)
        # A thread, because the command may keep the loop busy.
        overdue = threading.Timer(CLEANUP_SECONDS, leave, (code,))
        overdue.daemon = True
        overdue.start()
        received.append((code, overdue))
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, on_signal, EXIT_INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, on_signal, EXIT_TERMINATED)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Interrupted(received[0][0]) from None
        raise
    finally:
        for _, overdue in received:
            overdue.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


def prepare_streams() -> None:
    """Let standard output escape what its encoding cannot express, as standard error does.

    A standard stream that was closed before the start becomes an empty one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def finish_streams() -> None:
    """Write what is buffered; if that fails, as was reported before, Python must not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        discard = os.open(os.devnull, os.O_WRONLY)
        os.dup2(discard, sys.stdout.fileno())
        os.close(discard)


def finish_process() -> None:
    """Ignore Ctrl-C from now on, because the exit code is known and Python only cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """End the process at once, without cleanup."""
    os._exit(code)
