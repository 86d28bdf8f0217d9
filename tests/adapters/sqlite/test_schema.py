"""Versions of the tables, and files that are not ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from anymq.errors import ConfigurationError
from anymq_sqlite import Database
from anymq_sqlite.schema import APPLICATION_ID, VERSION
from tests.adapters.sqlite.support import Bench


def change(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


async def test_a_file_says_whose_it_is(bench: Bench) -> None:
    driver = await bench.open()
    query = "SELECT * FROM pragma_application_id, pragma_user_version"
    found = await driver.native.read(lambda db: db.execute(query).fetchone())
    assert found == (APPLICATION_ID, VERSION)


async def test_a_newer_file_is_refused(bench: Bench) -> None:
    await bench.open()
    await bench.aclose()
    change(bench.path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigurationError, match="upgrade anymq"):
        await bench.open()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE users (id)", "PRAGMA user_version = 7", "PRAGMA application_id = 5"]
)
async def test_another_applications_file_is_left_alone(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "app.db"
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        await Database.open(path)
    assert path.read_bytes() == before


async def test_tables_of_the_user_may_be_added(bench: Bench) -> None:
    driver = await bench.open()
    await driver.native.write(lambda db: db.execute("CREATE TABLE mine (id)"))
    await bench.aclose()
    await bench.open()
