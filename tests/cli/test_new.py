"""`anymq new`: the project that it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import Command, environment


@pytest.fixture
def project(anymq: Command, tmp_path: Path) -> Path:
    folder = tmp_path / "Web Shop"
    anymq("new", str(folder))
    return folder


def test_its_test_passes(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_it_has_the_name_of_its_folder(project: Path) -> None:
    names = {path.name for path in project.iterdir()}
    assert {"app.py", "test_app.py", "README.md", "requirements.txt", ".gitignore"} <= names
    for path in project.iterdir():
        assert "orders" not in path.read_text()
    assert 'name="web-shop"' in (project / "app.py").read_text()


def test_a_folder_with_files_is_left_alone(anymq: Command, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text("mine")
    assert "not empty" in anymq("new", str(tmp_path / "shop"), code=2).err
    assert (tmp_path / "shop" / "app.py").read_text() == "mine"
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["app.py"]


@pytest.mark.parametrize("name", ["17", "..."])
def test_a_name_that_no_service_has(anymq: Command, tmp_path: Path, name: str) -> None:
    assert "begins with a letter" in anymq("new", str(tmp_path / "a" / name), code=2).err
