"""The settings of a connection: code over environment over file over default, and their errors."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any, Self

import pytest

import anymq
from anymq import URL, App, ConfigurationError, InvalidURL, register
from anymq.driver import Clock
from anymq.settings import Settings, effective
from anymq.testing import TestBroker

from .scripted import ScriptedDriver

SECRET = "hunter2"


class KeepingDriver(ScriptedDriver):
    """A driver that keeps the options it was opened with."""

    given: Any

    @classmethod
    async def open(cls, url: URL, options: Any, *, timeout: float, clock: Clock) -> Self:
        made = await super().open(url, options, timeout=timeout, clock=clock)
        made.given = options
        return made


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test."""
    for name in [name for name in os.environ if name.startswith("ANYMQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    register("scripted", "tests.core.scripted:ScriptedDriver")


def origins(settings: Settings) -> dict[str, str]:
    return {item.name: item.origin for item in settings.items if item.origin != "default"}


def value(settings: Settings, name: str) -> object:
    (found,) = [item.value for item in settings.items if item.name == name]
    return found


def test_defaults() -> None:
    settings = effective("memory://")
    assert origins(settings) == {"url": "code"}
    assert settings.options.publish_timeout == value(settings, "publish_timeout") == 10.0
    assert settings.items[0].name == "url"


def test_code_over_environment_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "anymq.toml"
    file.write_text(
        'url = "memory://file"\npublish_timeout = 1\nmax_body = 11\nconnect_timeout = 1.5\n'
    )
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEOUT", "2")
    monkeypatch.setenv("ANYMQ_MAX_BODY", "22")
    settings = effective("memory://code?publish_timeout=3")
    assert (settings.options.publish_timeout, settings.options.max_body) == (3.0, 22)
    assert settings.options.connect_timeout == 1.5
    assert origins(settings) == {
        "url": "code",
        "publish_timeout": "code",
        "max_body": "ANYMQ_MAX_BODY",
        "connect_timeout": str(file),
    }
    assert value(effective(), "url") == "memory://file"
    monkeypatch.setenv("ANYMQ_URL", "memory://environment")
    assert value(effective(), "url") == "memory://environment"
    assert value(effective("memory://code"), "url") == "memory://code"


def test_the_options_in_a_url_rank_where_the_url_is_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "anymq.toml"
    file.write_text('url = "memory://f?publish_timeout=1&max_body=1"\nmax_body = 2\n')
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEOUT", "5")
    settings = effective()
    assert settings.options.publish_timeout == 5.0
    assert settings.options.max_body == 1
    monkeypatch.setenv("ANYMQ_URL", "memory://e?publish_timeout=7")
    settings = effective()
    assert settings.options.publish_timeout == 7.0
    assert origins(settings)["publish_timeout"] == "ANYMQ_URL"
    assert settings.options.max_body == 2


async def test_connect_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    register("keeping", "tests.core.test_effective_settings:KeepingDriver")
    monkeypatch.setenv("ANYMQ_URL", "keeping://h")
    monkeypatch.setenv("ANYMQ_SIZE", "9")
    monkeypatch.setenv("ANYMQ_SOURCE", "/shop")
    async with anymq.connect() as broker:
        assert isinstance(broker.driver, KeepingDriver)
        assert broker.driver.given.size == 9
    async with anymq.connect("memory://") as broker:
        await broker.publish("orders", "x")
        assert [m.message.source async for m in broker.admin.browse("orders")] == ["/shop"]
    async with anymq.connect("memory://", source="/code") as broker:
        await broker.publish("orders", "x")
        assert [m.message.source async for m in broker.admin.browse("orders")] == ["/code"]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("declare = false", "declare", False),
        ("declare = true", "declare", True),
        ('declare = "no"', "declare", False),
        ("publish_timeout = 3", "publish_timeout", 3.0),
        ("publish_timeout = 2.5", "publish_timeout", 2.5),
        ('publish_timeout = "2.5"', "publish_timeout", 2.5),
        ("publish_timeout = inf", "publish_timeout", math.inf),
        ("max_body = 1_000", "max_body", 1000),
        ("max_body = 1e3", "max_body", 1000),
        ("source = 5", "source", "5"),
        ('source = "/shop"', "source", "/shop"),
    ],
)
def test_values_of_a_file(tmp_path: Path, text: str, name: str, expected: object) -> None:
    (tmp_path / "anymq.toml").write_text(text)
    assert value(effective("memory://"), name) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("publish_timout = 5", r"'publish_timout' in .*anymq.toml .*did you mean publish_timeout"),
        ("publish-timeout = 5", r"did you mean publish_timeout"),
        ("publish_timeout = 'hunter2'", r"anymq.toml: option 'publish_timeout'"),
        ("[memory]\ndeclare = false", r"anymq.toml: memory must be a string, a number"),
        ("source = ['hunter2']", r"anymq.toml: source must be a string, a number"),
        ("source = 2020-01-01", r"anymq.toml: source must be a string"),
        ('source = "a\\nhunter2"', r"anymq.toml: control characters in 'source'"),
        ("source = hunter2", r"anymq.toml is not valid TOML"),
        ("partitions = 5", r"'partitions' in .*anymq.toml is no setting for memory://, but for"),
        ("max_body = 1.5", r"anymq.toml: option 'max_body'"),
        ('reply_topic = "a b"', r"anymq.toml"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "anymq.toml").write_text('url = "memory://"\n' + text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        effective()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ANYMQ_PUBLISH_TIMOUT", "5", "ANYMQ_PUBLISH_TIMOUT is no .*mean ANYMQ_PUBLISH_TIMEOUT"),
        ("ANYMQ_URLFILE", "x", "did you mean ANYMQ_URL_FILE"),
        ("ANYMQ_publish_timeout", "5", "ANYMQ_publish_timeout .*write ANYMQ_PUBLISH_TIMEOUT"),
        ("ANYMQ_PUBLISH_TIMEOUT", SECRET, "ANYMQ_PUBLISH_TIMEOUT: option 'publish_timeout'"),
        ("ANYMQ_SOURCE", "a\n" + SECRET, "ANYMQ_SOURCE: control characters"),
        ("ANYMQ_PARTITIONS", "5", "ANYMQ_PARTITIONS is no setting for memory://, .*kafka://"),
        ("ANYMQ_REPLY_TOPIC", "a b", "ANYMQ_REPLY_TOPIC"),
        ("ANYMQ_", "x", "ANYMQ_ is no setting"),
    ],
)
def test_a_bad_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str) -> None:
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        effective()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [f"memory://h:{SECRET}", f"{SECRET}", f"memory://u:{SECRET}/x@h", f"memory://?x={SECRET}"],
)
def test_a_bad_url_names_its_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("ANYMQ_URL", url)
    with pytest.raises(InvalidURL, match=r"ANYMQ_URL|unknown option 'x'") as caught:
        effective()
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("ANYMQ_URL")
    (tmp_path / "secret").write_text(url)
    monkeypatch.setenv("ANYMQ_URL_FILE", "secret")
    with pytest.raises(InvalidURL, match=r"secret|unknown option 'x'") as caught:
        effective()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "ANYMQ_SERVICE_HOST",
        "ANYMQ_SERVICE_PORT_HTTP",
        "ANYMQ_PORT",
        "ANYMQ_PORT_80_TCP_ADDR",
        "ANYMQ_WORKER_SERVICE_PORT",
        "ANYMQ_WORKER_PORT_8080_TCP",
        "ANYMQ_BROKERS_INSTANCE",
        "ANYMQ_TEST_KAFKA_URL",
        "ANYMQ_FUZZ_SEED",
        "ANYMQ_BENCH_STORE",
        "ANYMQ_CONTEXT",
    ],
)
def test_variables_of_others_are_no_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert origins(effective("memory://")) == {"url": "code"}


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEOUT", "")
    monkeypatch.setenv("ANYMQ_URL_FILE", "")
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    assert origins(effective()) == {"url": "ANYMQ_URL"}


def test_options_of_another_backend_do_not_stop_a_url_in_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The settings may be about Kafka, and this connection to a second broker."""
    monkeypatch.setenv("ANYMQ_URL", "kafka://h")
    monkeypatch.setenv("ANYMQ_PARTITIONS", "12")
    monkeypatch.setenv("ANYMQ_PUBLISH_TIMEOUT", "3")
    (tmp_path / "anymq.toml").write_text("session_timeout = 20")
    settings = effective()
    assert (settings.own.partitions, settings.own.session_timeout) == (12, 20.0)
    settings = effective("memory://")
    assert origins(settings) == {"url": "code", "publish_timeout": "ANYMQ_PUBLISH_TIMEOUT"}
    monkeypatch.setenv("ANYMQ_PARTITION", "12")
    with pytest.raises(ConfigurationError, match="ANYMQ_PARTITION is no setting"):
        effective("memory://")


async def test_an_idempotency_store_takes_its_url_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMQ_SYNCHRONOUS", "hunter2")
    app = App("memory://store")
    seen: list[str] = []

    @app.subscriber("t", group="g", idempotency=anymq.Idempotency("sqlite:///seen.db"))
    async def handle(body: str) -> None:
        seen.append(body)
        app.stop()

    async with anymq.connect("memory://store") as broker:
        await broker.publish("t", "x")
        await app.serve()
    assert seen == ["x"]


async def test_a_test_broker_is_not_set_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANYMQ_PARTITIONS", "12")
    monkeypatch.setenv("ANYMQ_MAX_BODY", "1")
    monkeypatch.setenv("ANYMQ_TYPO", "1")
    monkeypatch.setenv("ANYMQ_URL", "kafka://nowhere")
    (tmp_path / "anymq.toml").write_text("this is no TOML")
    app = App()
    for url in (None, f"sqlite:///{tmp_path}/app.db"):
        async with TestBroker(app, url=url) as broker:
            await broker.publish("t", "longer than one byte")
            assert len(broker.published("t")) == 1


async def test_an_isolated_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    monkeypatch.setenv("ANYMQ_TYPO", "1")
    with pytest.raises(ConfigurationError, match="ANYMQ_TYPO"):
        await anymq.connect("memory://")
    async with anymq.connect("memory://", isolated=True):
        pass
    with pytest.raises(ConfigurationError, match="isolated=True needs a URL"):
        anymq.connect(isolated=True)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMQ_URL", f"scripted://user:{SECRET}@localhost")
    settings = effective()
    assert value(settings, "url") == "scripted://user:***@localhost"
    assert settings.url.password == SECRET
    assert SECRET not in f"{settings!r} {settings.items!r} {settings}"
    monkeypatch.setenv("ANYMQ_URL", "nats://localhost")
    monkeypatch.setenv("ANYMQ_CERT", __file__)
    monkeypatch.setenv("ANYMQ_KEY_FILE", __file__)
    assert value(effective(), "key_file") == "***"


# Where the URL is from.


def test_no_url_anywhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set ANYMQ_URL"):
        effective()
    (tmp_path / "anymq.toml").write_text("publish_timeout = 5")
    with pytest.raises(ConfigurationError, match="set ANYMQ_URL"):
        anymq.connect()


def test_both_a_url_and_a_file_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "anymq.toml").write_text('url = "memory://"\nurl_file = "x"')
    with pytest.raises(ConfigurationError, match=r"anymq.toml has both url and url_file"):
        effective()
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    monkeypatch.setenv("ANYMQ_URL_FILE", "x")
    with pytest.raises(ConfigurationError, match="both ANYMQ_URL and ANYMQ_URL_FILE are set"):
        effective()
    assert value(effective("memory://code"), "url") == "memory://code"


def test_a_url_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "secret").write_text(f"\n scripted://user:{SECRET}@localhost?size=4 \n")
    monkeypatch.setenv("ANYMQ_URL_FILE", "below/secret")
    settings = effective()
    assert (settings.url.password, settings.own.size) == (SECRET, 4)
    assert origins(settings) == {"url": "ANYMQ_URL_FILE", "size": "ANYMQ_URL_FILE"}
    monkeypatch.delenv("ANYMQ_URL_FILE")
    (tmp_path / "anymq.toml").write_text('url_file = "below/secret"')
    monkeypatch.chdir(tmp_path / "below")
    assert effective().url.password == SECRET
    assert SECRET not in repr(effective())


# Which file counts.


def test_the_nearest_directory_counts_and_in_it_anymq_toml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    (tmp_path / "pyproject.toml").write_text('[tool.anymq]\nurl = "memory://top"')
    assert value(effective(), "url") == "memory://top"
    (below.parent / "pyproject.toml").write_text('[project]\nname = "anymq-user"')
    assert value(effective(), "url") == "memory://top"
    (below.parent / "pyproject.toml").write_text('[tool]\nanymq.url = "memory://middle"')
    assert value(effective(), "url") == "memory://middle"
    (below.parent / "anymq.toml").write_text('url = "memory://own"')
    assert value(effective(), "url") == "memory://own"
    (below / "pyproject.toml").write_text("[tool.anymq]")
    with pytest.raises(ConfigurationError, match="no broker URL"):
        effective()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "anymq.toml"
    for name in ("one", "other"):
        file.write_text(f'url = "memory://{name}"')
        assert value(effective(), "url") == f"memory://{name}"


def test_a_broken_pyproject_of_others_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    effective("memory://")
    (tmp_path / "pyproject.toml").write_text("[tool.anymq\n")
    with pytest.raises(ConfigurationError, match=r"pyproject.toml is not valid TOML"):
        effective("memory://")
    (tmp_path / "pyproject.toml").write_text("[tool]\nanymq = 5")
    with pytest.raises(ConfigurationError, match=r"pyproject.toml: tool.anymq must be a table"):
        effective("memory://")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no directory modes")
def test_a_parent_that_everybody_may_write_to_is_not_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    work = shared / "work"
    work.mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / "anymq.toml").write_text('url = "memory://planted"')
    monkeypatch.chdir(work)
    with pytest.raises(ConfigurationError, match="no broker URL"):
        effective()
    monkeypatch.chdir(shared)
    assert value(effective(), "url") == "memory://planted"


def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "anymq.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"anymq.toml cannot be read: Is a directory"):
        effective("memory://")


def test_a_working_directory_that_was_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert origins(effective("memory://")) == {"url": "code"}
    monkeypatch.chdir(tmp_path)
