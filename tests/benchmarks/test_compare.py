"""Comparing two installations: both are measured in every round, and a slower one is noticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main

SHORT = ["--rounds", "2", "--seconds", "0.05"]
EXCEEDED = -1e9
"""A limit in per cent that every measurement exceeds."""


@pytest.mark.parametrize("backend", ["sqlite", "memory"])
def test_both_installations_are_measured_on_each_workload(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", sys.executable, sys.executable, "--backend", backend, *SHORT]) == 0
    shown = capsys.readouterr()
    for workload in ("publish", "publish-many", "consume"):
        assert any({backend, workload} <= set(line.split()) for line in shown.out.splitlines())
    assert f"{backend}: round 2 of 2" in shown.err
    assert shown.err.count("core/anymq/__init__.py") == 2


def test_a_slower_installation_exceeds_the_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bench.db"
    arguments = ["compare", sys.executable, sys.executable, "--url", url, *SHORT]
    assert main([*arguments, f"--limit={EXCEEDED}"]) == 1


def test_an_interpreter_without_anymq_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "python")
    assert main(["compare", sys.executable, missing, "--backend", "memory"]) == 1
    assert f"{missing} cannot be started" in capsys.readouterr().err
