"""Both type checkers report the errors that `api.py` marks, and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

API = Path(__file__).with_name("api.py")
ROOT = API.parents[2]
IGNORE = re.compile(r"  # type: ignore.*")


def check(tmp_path: Path, *command: str) -> str:
    """Return what a type checker prints about `api.py` without the marks."""
    copy = tmp_path / "api.py"
    copy.write_text(IGNORE.sub("", API.read_text(encoding="utf-8")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *command, str(copy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def marked() -> Sequence[int]:
    """Return the numbers of the lines of `api.py` that have an error."""
    lines = API.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if IGNORE.search(line)]


def test_mypy(tmp_path: Path) -> None:
    printed = check(tmp_path, "mypy", "--strict", "--no-incremental")
    lines = {int(found) for found in re.findall(r"api\.py:(\d+): error", printed)}
    assert sorted(lines) == marked(), printed


def test_pyright(tmp_path: Path) -> None:
    report = json.loads(check(tmp_path, "pyright", "--outputjson", "--pythonpath", sys.executable))
    errors = report["generalDiagnostics"]
    lines = {item["range"]["start"]["line"] + 1 for item in errors if item["severity"] == "error"}
    assert sorted(lines) == marked(), errors
