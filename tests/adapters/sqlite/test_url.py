"""Paths and options of URLs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anymq.errors import ConfigurationError, InvalidURL
from anymq.url import URL
from anymq_sqlite import SqliteOptions
from anymq_sqlite.options import database_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///app.db", Path.cwd() / "app.db"),
        ("sqlite:////var/lib/app.db", Path("/var/lib/app.db")),
        ("sqlite:///a%20b/%C3%B8.db?poll=1", Path.cwd() / "a b" / "ø.db"),
        ("sqlite:///../up.db", Path.cwd().parent / "up.db"),
    ],
)
def test_three_slashes_are_relative_and_four_absolute(text: str, path: Path) -> None:
    assert database_path(URL.parse(text)) == path


def test_the_path_stays_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path.cwd()
    path = database_path(URL.parse("sqlite:///app.db"))
    monkeypatch.chdir(tmp_path)
    assert os.fspath(path) == os.fspath(before / "app.db")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert database_path(URL.parse(f"sqlite:///{tmp_path}/link.db")).name == "real.db"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:////", "file"),
        ("sqlite:///dir/", "file"),
        ("sqlite://app.db", "three slashes"),
        ("sqlite://user:secret@/app.db", "three slashes"),
        ("sqlite:///a%00b.db", "NUL"),
    ],
)
def test_urls_that_name_no_file_are_refused(text: str, hint: str) -> None:
    with pytest.raises(InvalidURL, match=hint) as caught:
        database_path(URL.parse(text))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"synchronous": "sometimes"}, {"poll": 0.0}, {"retention": -1.0}, {"sweep": 0.0}]
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SqliteOptions(**options)  # type: ignore[arg-type]
