"""Summarise `make coverage`: how many branches of each package the tests took.

build/coverage/PACKAGE.txt lists those that no test took, by file and line, with the line's text.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "coverage"


def measured() -> dict[str, Any]:
    """Return the files of the report that coverage writes as JSON."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, check=True)
    file = FOLDER / "coverage.json"
    subprocess.run([*coverage, "json", "--quiet", "-o", str(file)], cwd=ROOT, check=True)
    files: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["files"]
    return files


def unvisited(name: str, branches: list[tuple[int, int]]) -> list[str]:
    """Return one line of text for each branch; a negative target leaves the function."""
    source = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [
        f"{name}:{start} -> {end if end > 0 else 'exit'}: {source[start - 1].strip()}"
        for start, end in sorted(branches)
    ]


def main() -> None:
    taken: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    lines: dict[str, list[str]] = defaultdict(list)
    for name, file in measured().items():
        package = Path(name).parts[1]
        taken[package][0] += file["summary"]["covered_branches"]
        taken[package][1] += file["summary"]["num_branches"]
        lines[package] += unvisited(name, file["missing_branches"])
    for package, (covered, total) in sorted(taken.items()):
        report = FOLDER / f"{package}.txt"
        report.write_text("\n".join(lines[package]) + "\n", encoding="utf-8")
        share = f"{covered:5} of {total:5} branches, {covered / max(total, 1):4.0%}"
        print(f"{package:16} {share}; not taken: {report.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
