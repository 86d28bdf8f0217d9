"""Diagnosis of SQLite: settings, space and places that lose messages."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from anymq_sqlite import checks
from anymq_sqlite.checks import file_system_check
from tests.adapters.diagnosing import diagnosis

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("level", "outcome"),
    [("OFF", "failed"), ("NORMAL", "warning"), ("FULL", "ok"), ("EXTRA", "ok")],
)
async def test_writes_that_are_not_forced(tmp_path: Path, level: str, outcome: str) -> None:
    url = f"sqlite:///{tmp_path}/a.db?synchronous={level}"
    found = (await diagnosis(url))["forced writes"]
    assert found.outcome == outcome
    assert level in found.detail


@pytest.mark.parametrize(
    ("free", "outcome"), [(10 * MIB, "failed"), (500 * MIB, "warning"), (5000 * MIB, "ok")]
)
async def test_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, outcome: str
) -> None:
    usage = SimpleNamespace(total=free * 2, used=free, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = (await diagnosis(f"sqlite:///{tmp_path}/a.db"))["free space"]
    assert found.outcome == outcome
    assert str(free // MIB) in found.detail


async def test_a_file_that_all_users_may_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert (await diagnosis(f"sqlite:///{path}"))["access"].outcome == "ok"
    os.chmod(path, 0o644)
    found = (await diagnosis(f"sqlite:///{path}"))["access"]
    assert found.outcome == "warning"
    assert f"chmod o-rwx {path}" in found.fix


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await diagnosis(f"sqlite:///{path}")
    with sqlite3.connect(path) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE type = 'index' ORDER BY rootpage DESC"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    found = await diagnosis(f"sqlite:///{path}")
    assert any(check.outcome in ("failed", "unknown") for check in found.values())
    assert found["file"].outcome in ("failed", "unknown")


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("no database at all, but long enough to have a header" * 20)
    found = await diagnosis(f"sqlite:///{tmp_path}/a.db")
    assert found["connection"].outcome == "failed"


async def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    found = await diagnosis(f"sqlite:///{tmp_path}/nosuch/a.db")
    assert found["connection"].outcome == "failed"
    assert not (tmp_path / "nosuch").exists()


async def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        f"/dev/root / ext4 rw 0 0\nserver:/export {tmp_path}/with\\040space nfs4 rw 0 0\n"
    )
    monkeypatch.setattr(checks, "MOUNTS", table)
    assert file_system_check(tmp_path / "with space" / "a.db").outcome == "failed"
    assert "nfs4" in file_system_check(tmp_path / "with space" / "a.db").detail
    assert file_system_check(tmp_path / "a.db").detail == "ext4"
    monkeypatch.setattr(checks, "MOUNTS", tmp_path / "nosuch")
    assert file_system_check(tmp_path / "a.db").outcome == "unknown"
