"""A URL in a secret file, whose credentials are read again for each connection."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Self

import pytest

import anymq
from anymq import URL, AccessDenied, ConfigurationError, InvalidURL, register
from anymq.driver import Clock
from anymq.url_file import MAX_BYTES, URLFile

from .scripted import ScriptedDriver

OLD = "amqp://user:old@a,b:1/v?heartbeat=5"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "url"
    path.write_text(OLD)
    return path


def test_a_rotated_password_is_read_again(file: Path) -> None:
    url = URLFile(file).read()
    assert (url.current(), url.current().password) == (url, "old")
    file.write_text(OLD.replace("user:old", "next:n%65w"))
    assert (url.current().username, url.current().password) == ("next", "new")
    assert url.current().current().password == "new"
    assert (url.current().hosts, url.current().path) == (url.hosts, url.path)
    assert "new" not in f"{url.current()} {url.current()!r}"
    assert url.password == "old"


def test_a_secret_that_is_replaced_by_a_link_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link into a folder that is a link itself."""
    for number, password in enumerate(("old", "new")):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "url").write_text(f"redis://:{password}@h\n")
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "url").symlink_to("..data/url")
    url = URLFile(tmp_path / "url").read()
    (tmp_path / "..next").symlink_to("..1")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert url.current().password == "new"


def test_a_relative_path_is_that_of_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    url = URLFile("url").read()
    monkeypatch.chdir("/")
    file.write_text(OLD.replace("old", "new"))
    assert url.current().password == "new"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("amqp://user:hunter2", "host:port"),
        ("hunter2", "looks like scheme://host"),
        ("amqp://user:hunter2/x@a", "an @ after the host"),
        (b"amqp://user:hunter2\xff@a", "not UTF-8"),
        ("amqp://user:hunter2@a" + " " * MAX_BYTES, "too large"),
        ("amqp://user@a,b:1/v", "a user or a password was added"),
        ("amqp://a,b:1/v", "a user or a password was added"),
        ("amqp://user:hunter2@other/v", "another broker"),
        ("amqps://user:hunter2@a,b:1/v", "another broker"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_usable_leaves_the_credentials_and_warns_once(
    caplog: pytest.LogCaptureFixture, file: Path, content: str | bytes | None, said: str
) -> None:
    url = URLFile(file).read()
    file.write_text(OLD.replace("old", "newer"))
    assert url.current().password == "newer"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for _ in range(3):
        assert (url.current().username, url.current().password) == ("user", "newer")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()
    assert str(file) in record.getMessage()
    assert "read before remain in use" in record.getMessage()
    assert "hunter2" not in caplog.text
    file.write_text(OLD.replace("old", "newest"))
    assert url.current().password == "newest"
    file.write_text("")
    assert url.current().password == "newest"
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("amqp://user:new@b:1,c/v?heartbeat=5", "the URL's hosts changed"),
        ("amqp://user:new@a,b:1/w?heartbeat=5", "the URL's path changed"),
        ("amqp://user:new@a,b:1/w?heartbeat=6", "the URL's path and query changed"),
    ],
)
def test_what_else_changes_waits_for_a_restart(
    caplog: pytest.LogCaptureFixture, file: Path, changed: str, said: str
) -> None:
    url = URLFile(file).read()
    file.write_text(changed)
    for _ in range(3):
        now = url.current()
        assert now.password == "new"
        assert (now.hosts, now.path, now.query) == (url.hosts, url.path, url.query)
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "after a restart" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, ConfigurationError, "No such file"),
        ("", ConfigurationError, "it is empty"),
        ("amqp://user:hunter2/x@h", InvalidURL, "an @ after the host"),
    ],
)
def test_a_file_that_is_not_usable_at_the_start(
    file: Path, content: str | None, error: type[Exception], said: str
) -> None:
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(error, match=said) as caught:
        URLFile(file).read()
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "url")
    with pytest.raises(ConfigurationError, match="no regular file"):
        URLFile(tmp_path / "url").read()
    with pytest.raises(ConfigurationError, match="no regular file"):
        URLFile(tmp_path).read()


class Guarded(ScriptedDriver):
    """A driver whose broker accepts one password, and rotates it at the first attempt."""

    accepted = "old"
    file: Path
    attempts = 0

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        cls.attempts += 1
        sent = url.current().password
        if cls.attempts == 1:
            cls.file.write_text(f"guarded://user:{cls.accepted}@localhost")
        if sent != cls.accepted:
            raise AccessDenied("refused")
        return await super().open(url, options, timeout=timeout, clock=clock)


@pytest.mark.parametrize(("accepted", "attempts"), [("old", 1), ("new", 2)])
async def test_credentials_that_were_rotated_while_connecting_are_tried_again(
    monkeypatch: pytest.MonkeyPatch, file: Path, accepted: str, attempts: int
) -> None:
    register("guarded", "tests.core.test_url_file:Guarded")
    _write(file, "guarded://user:old@localhost")
    monkeypatch.setattr(Guarded, "attempts", 0)
    monkeypatch.setattr(Guarded, "accepted", accepted)
    monkeypatch.setattr(Guarded, "file", file, raising=False)
    monkeypatch.setenv("ANYMQ_URL_FILE", str(file))
    async with anymq.connect():
        assert Guarded.attempts == attempts
    monkeypatch.setattr(Guarded, "accepted", "unknown")
    with pytest.raises(AccessDenied):
        await anymq.connect()
    assert Guarded.attempts == attempts + 1


def _write(file: Path, text: str) -> None:
    file.write_text(text)
