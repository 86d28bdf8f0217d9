"""Flame graphs are drawn, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main


def test_publishing_and_consuming_are_drawn(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bench.db"
    assert main(["profile", url, "--messages", "2000", "--output", str(tmp_path)]) == 0
    for environment in ("publish", "consume"):
        drawing = (tmp_path / f"sqlite-{environment}.svg").read_text()
        assert "</svg>" in drawing
        assert "anymq" in drawing


def test_memory_is_drawn_in_one_picture(tmp_path: Path) -> None:
    assert main(["profile", "memory://", "--messages", "2000", "--output", str(tmp_path)]) == 0
    assert "</svg>" in (tmp_path / "memory-both.svg").read_text()


def test_a_contestant_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/bench.db"
    arguments = ["profile", url, "--contestant", "nobody", "--output", str(tmp_path)]
    assert main(arguments) == 1
    assert "'nobody' is none of anymq" in capsys.readouterr().err
