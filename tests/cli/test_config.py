"""`anymq config show`: the effective settings with their origin, secrets masked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import Command


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, in which the command runs."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def origins(anymq: Command, *arguments: str) -> dict[str, tuple[object, str]]:
    found = anymq("config", "show", "--json", *arguments).data
    return {item["name"]: (item["value"], item["origin"]) for item in found}


def test_each_setting_has_its_origin(
    anymq: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "anymq.toml").write_text("publish_timeout = 3\nmax_body = 5000\n")
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEOUT", "4")
    found = origins(anymq, "--url", "sqlite:///a.db?connect_timeout=7")
    assert found["connect_timeout"] == (7, "code")
    assert found["publish_timeout"] == (4, "ANYMQ_PUBLISH_TIMEOUT")
    assert found["max_body"] == (5000, str(folder / "anymq.toml"))
    assert found["declare"][1] == "default"
    assert found["url"][1] == "code"


def test_only_what_is_stated_unless_all_is_asked_for(anymq: Command) -> None:
    shown = anymq("config", "show", "--url", "memory://?max_body=5000")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["SETTING", "url", "max_body"]
    assert "--all" in shown.err
    assert "publish_timeout" in anymq("config", "show", "--all", "--url", "memory://").out


@pytest.mark.parametrize("backend", ["memory", "sqlite", "kafka", "rabbitmq", "nats", "redis"])
def test_no_server_is_needed(anymq: Command, backend: str) -> None:
    scheme = {"rabbitmq": "amqp"}.get(backend, backend)
    url = f"{scheme}:///x.db" if backend == "sqlite" else f"{scheme}://127.0.0.1"
    assert origins(anymq, "--url", url)["url"][0] == url


def test_secrets_are_masked(
    anymq: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://shop:hunter2@127.0.0.1/")
    monkeypatch.setenv("ANYMQ_URL_FILE", str(file))
    shown = anymq("config", "show", "--all").out + anymq("config", "show", "--json").out
    assert "hunter2" not in shown
    assert "ANYMQ_URL_FILE" in shown


def test_a_context_and_an_app(
    anymq: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anymq("context", "add", "dev", "sqlite:///dev.db")
    assert origins(anymq)["url"] == ("sqlite:///dev.db", "code")
    (folder / "shop_of_test.py").write_text("import anymq\napp = anymq.App('sqlite:///shop.db')\n")
    assert origins(anymq, "--app", "shop_of_test:app")["url"] == ("sqlite:///shop.db", "code")
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    assert origins(anymq)["url"] == ("memory://", "ANYMQ_URL")


def test_mistakes_are_one_line(anymq: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = anymq("config", "show", code=2).err
    assert "no broker URL" in failed
    assert "hint: give --url" in failed
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEUOT", "4")
    failed = anymq("config", "show", "--url", "memory://", code=2).err
    assert "ANYMQ_PUBLISH_TIMEUOT" in failed
    assert "publish_timeout" in failed.lower()
