"""Run the tests with the real servers: start those that are not up, run pytest, stop them again.

`python -m tests.run [PYTEST ARGUMENTS]`. A server that cannot be had is reported by name, and what
needs it is not run; with `CI=true` that fails the run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any, NoReturn

from tests.conftest import UNAVAILABLE_VARIABLE

PYTEST = [sys.executable, "-m", "pytest", "-n", "4", "--dist", "loadgroup"]
# Seconds an interrupted pytest gets to close what its tests opened.
GRACE = 20


def load_brokers() -> Any:
    """The servers' package, or None while a checkout has none."""
    spec = importlib.util.find_spec("brokers")
    if spec is None or spec.origin is None:
        return None
    return importlib.import_module("brokers")


def start_servers(brokers: Any, started: list[str]) -> dict[str, str]:
    """Start every server, adding to `started` those that were down; say why the others are not."""
    unavailable: dict[str, str] = {}
    for name in brokers.NAMES:
        try:
            started += brokers.up([name])
        except Exception as error:  # whatever is wrong with one server, the others are tested
            unavailable[name] = str(error) or type(error).__name__
    return unavailable


def run_pytest(arguments: list[str], unavailable: dict[str, str]) -> int:
    environment = os.environ | {UNAVAILABLE_VARIABLE: json.dumps(unavailable)}
    pytest = subprocess.Popen([*PYTEST, *arguments], env=environment)

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        pytest.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        return pytest.wait()
    except KeyboardInterrupt:  # a terminal's Ctrl-C has reached pytest too
        try:
            pytest.wait(GRACE)
        except subprocess.TimeoutExpired:
            pytest.kill()
        return 130


def main(arguments: list[str]) -> int:
    brokers = load_brokers()
    if brokers is None:
        return run_pytest(arguments, {})
    started: list[str] = []
    try:
        unavailable = start_servers(brokers, started)
        status = run_pytest(arguments, unavailable)
    finally:
        if started:
            brokers.down(started)
    if unavailable and os.environ.get("CI") == "true":
        return status or 1
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
