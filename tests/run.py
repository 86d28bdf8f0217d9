"""Run the tests with the real servers: start those that are not up, run pytest, stop them again.

`python -m tests.run [PYTEST ARGUMENTS]`. Tests marked `long` run where the arguments name a file, a
folder or `-m`. A server that cannot be had is reported by name, and what needs it is not run; with
`CI=true` that fails the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import NoReturn

import brokers
from tests.conftest import UNAVAILABLE_VARIABLE

PYTEST = [sys.executable, "-m", "pytest", "-n", "8", "--dist", "loadgroup"]
# Every test may use `tests`; those that break servers have `faults` to themselves. Neither is the
# instance for development, so both begin empty: the leavings of many runs make servers slow.
INSTANCES = ("tests", "faults")
# Seconds that an interrupted pytest gets to close what its tests opened.
GRACE = 20


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unlike a terminal's Ctrl-C has reached this process alone."""


def terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def start(server: brokers.Server) -> str | None:
    """Start an empty server; why that failed, or None."""
    try:
        server.reset()
    except brokers.BrokersError as error:
        return str(error).removeprefix(f"{server.name}: ")
    return None


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start every server and give those that are not up, with the reason; stop what was not up."""
    every = [brokers.server(name, instance) for instance in INSTANCES for name in brokers.NAMES]
    with ThreadPoolExecutor(len(every)) as pool:
        states = [status.state for status in pool.map(brokers.Server.status, every)]
        down = [s for s, state in zip(every, states, strict=True) if state is brokers.State.STOPPED]
        try:
            reasons = zip(down, pool.map(start, down), strict=True)
            yield {server.name: reason for server, reason in reasons if reason}
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with redirect_stderr(StringIO()):  # pytest's closing line stays the last one
                list(pool.map(brokers.Server.down, down))


def selection(arguments: list[str]) -> list[str]:
    """Return what deselects the long tests, unless `arguments` choose by path or by marker."""
    by_path = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    by_marker = any(argument.startswith("-m") for argument in arguments)
    return [] if by_path or by_marker else ["-m", "not long"]


def run_pytest(arguments: list[str], unavailable: dict[str, str]) -> int:
    environment = os.environ | {UNAVAILABLE_VARIABLE: json.dumps(unavailable)}
    pytest = subprocess.Popen([*PYTEST, *selection(arguments), *arguments], env=environment)
    try:
        return pytest.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Terminated):
            pytest.send_signal(signal.SIGINT)
        try:
            pytest.wait(GRACE)
        except subprocess.TimeoutExpired:
            pytest.kill()
        raise


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, terminate)
    os.environ["ANYMQ_BROKERS_INSTANCE"] = INSTANCES[0]
    with servers() as unavailable:
        status = run_pytest(arguments, unavailable)
    if unavailable and os.environ.get("CI") == "true":
        return status or 1
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
