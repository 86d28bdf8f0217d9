"""A new user with nothing but the wheel: from `pip install` to the first message."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.conftest import built_once, run

pytestmark = [built_once, pytest.mark.long]

LIMIT = 60.0
"""Seconds on a quiet machine; the test admits five times as many."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment variables of a user with an empty home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYMQ_")}
    return kept | {"HOME": str(tmp_path), "NO_COLOR": "1", "PYTHONSAFEPATH": "1"}


@pytest.fixture
def subscriber(
    tmp_path: Path, environment: dict[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes that a test has started."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_the_first_message_comes_within_a_minute(
    wheel: Path,
    tmp_path: Path,
    environment: dict[str, str],
    subscriber: list[subprocess.Popen[str]],
) -> None:
    began = time.monotonic()
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", str(venv))
    run(str(venv / "bin" / "pip"), "install", "--quiet", "--no-input", str(wheel))
    anymq = str(venv / "bin" / "anymq")
    url = f"sqlite:///{tmp_path}/shop.db"

    reading = subprocess.Popen(
        [anymq, "sub", "orders", "-g", "billing", "-n", "1", "-f", "raw", "--follow", "-u", url],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    subscriber.append(reading)
    published = _anymq(anymq, "pub", "orders", '{"number": "o-1"}', "-u", url, env=environment)
    out, err = reading.communicate(timeout=5 * LIMIT)
    took = time.monotonic() - began
    assert (reading.returncode, out.strip()) == (0, '{"number": "o-1"}'), err
    assert "orders" in published
    assert took < 5 * LIMIT, f"the first message took {took:.0f} s"
    print(f"pip install to first message: {took:.1f} s")

    assert "o-3" in _anymq(anymq, "demo", env=environment)
    assert "orders" in _anymq(anymq, "topic", "ls", "-u", url, env=environment)


def _anymq(*command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
