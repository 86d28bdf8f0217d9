"""README and docs say what is the case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_capability_tables_are_those_of_the_adapters() -> None:
    command = [sys.executable, str(ROOT / "docs" / "capability_table.py"), "--check"]
    checked = subprocess.run(command, check=False)
    assert checked.returncode == 0, "run: python docs/capability_table.py"


def test_the_figures_are_those_of_the_report() -> None:
    command = [sys.executable, str(ROOT / "docs" / "benchmark_table.py"), "--check"]
    checked = subprocess.run(command, check=False)
    assert checked.returncode == 0, "run: python docs/benchmark_table.py"


def test_the_readme_goes_on_behind_its_tables() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[:3] == [
        "## Guarantees",
        "## Performance",
        "## Handlers, middleware, and the guides",
    ]
    assert headings[-1] == "## Licence"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
