"""Flame graphs are written, or the reason is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main


def test_publish_and_consume_have_a_graph_each(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bench.db"
    assert main(["profile", url, "--messages", "2000", "--output", str(tmp_path)]) == 0
    for environment in ("publish", "consume"):
        drawing = (tmp_path / f"sqlite-{environment}.svg").read_text()
        assert "</svg>" in drawing
        assert "anymq" in drawing


def test_memory_has_one_graph(tmp_path: Path) -> None:
    assert main(["profile", "memory://", "--messages", "2000", "--output", str(tmp_path)]) == 0
    assert "</svg>" in (tmp_path / "memory-both.svg").read_text()


def test_an_unknown_contestant_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/bench.db"
    arguments = ["profile", url, "--contestant", "nobody", "--output", str(tmp_path)]
    assert main(arguments) == 1
    assert "no contestant 'nobody'; choose one of anymq" in capsys.readouterr().err
