"""`anymq context`: named brokers without secrets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from anymq import ConfigurationError
from anymq.cli.contexts import Contexts, check_references
from tests.cli.support import Command


def test_add_use_list_and_remove(anymq: Command) -> None:
    anymq("context", "add", "dev", "sqlite:///dev.db")
    anymq("context", "add", "prod", "kafka://a:9092,b:9092", "--use")
    anymq("context", "add", "test", "memory://")
    assert anymq("context", "ls", "--json").data == [
        {"name": "dev", "url": "sqlite:///dev.db", "current": False},
        {"name": "prod", "url": "kafka://a:9092,b:9092", "current": True},
        {"name": "test", "url": "memory://", "current": False},
    ]
    anymq("context", "use", "dev")
    anymq("context", "rm", "prod")
    shown = anymq("context", "ls").out
    assert "prod" not in shown
    assert "*  dev" in shown


def test_a_user_without_contexts_is_told_how_to_add_one(anymq: Command) -> None:
    listed = anymq("context", "ls")
    assert "anymq context add NAME URL" in listed.err
    assert anymq("context", "ls", "--json").data == []


def test_only_the_user_reads_the_file(anymq: Command, home: Path) -> None:
    anymq("context", "add", "dev", "sqlite:///dev.db")
    (file,) = (home / "anymq").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter2@host/",
        "nats://hunter2@host",
        "redis://host/?password=hunter2",
        "amqp://user:${PW}hunter2@host/",
    ],
)
def test_a_secret_is_refused(anymq: Command, home: Path, url: str) -> None:
    failed = anymq("context", "add", "prod", url, code=2)
    assert "hunter2" not in failed.err
    assert "${NAME}" in failed.err
    assert not (home / "anymq").exists()


def test_references_are_resolved_and_encoded(
    anymq: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("a/b\n")
    reference = "${file:" + str(secret) + "}"
    anymq("context", "add", "prod", "amqp://user:${RABBIT_PW}@host/?token=" + reference)
    monkeypatch.setenv("RABBIT_PW", "p@ss:w/rd")
    assert Contexts.read().url("prod") == "amqp://user:p%40ss%3Aw%2Frd@host/?token=a%2Fb"
    assert "p@ss" not in anymq("context", "ls").out


def test_unresolved_references_say_what_is_missing(anymq: Command) -> None:
    anymq("context", "add", "prod", "amqp://user:${RABBIT_PW}@host/")
    anymq("context", "add", "other", "amqp://user:${file:/nowhere/pw}@host/")
    with pytest.raises(ConfigurationError, match="RABBIT_PW is not set"):
        Contexts.read().url("prod")
    with pytest.raises(ConfigurationError, match="/nowhere/pw: No such file"):
        Contexts.read().url("other")


def test_unknown_and_bad_names(anymq: Command) -> None:
    anymq("context", "add", "staging", "sqlite:///dev.db")
    assert "did you mean 'staging'" in anymq("context", "use", "stagin", code=2).err
    assert "cannot name a context" in anymq("context", "add", "a b", "memory://", code=2).err
    assert "scheme://host" in anymq("context", "add", "x", "nonsense", code=2).err
    check_references("kafka://a,b")


def test_a_damaged_file_is_one_line(anymq: Command, home: Path) -> None:
    (home / "anymq").mkdir()
    (home / "anymq" / "contexts.toml").write_text("[contexts\n")
    failed = anymq("context", "ls", code=2)
    assert "contexts.toml is not TOML" in failed.err
    (home / "anymq" / "contexts.toml").write_text("[contexts.a]\nurl = 5\n")
    assert "'a' has no url" in anymq("context", "ls", code=2).err
