"""`anymq doctor` on every backend, and what it shows of a connection that fails."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anymq.operating.trial import STEPS
from anymq.testing import random_name
from brokers import server
from tests.cli.support import SERVERS, Command, arguments_of, environment, run, start

TLS = {"kafka": "kafka+ssl", "rabbitmq": "amqps", "nats": "tls", "redis": "rediss"}


def marked(*names: str) -> list[Any]:
    return [pytest.param(name, marks=getattr(pytest.mark, name)) for name in names]


def address(backend: str) -> str:
    """Return host and port of the running server."""
    running = server(backend)
    running.up()
    return running.url.partition("://")[2].partition("@")[2 if "@" in running.url else 0]


def test_a_broker_in_order(anymq: Command, url: str) -> None:
    shown = anymq("doctor", url)
    lines = shown.out.splitlines()
    assert not [line for line in lines if line.startswith(("✗", "-"))]
    assert [line.split("can ")[1].split()[0] for line in lines if " can " in line] == [
        step.split()[1] for step in STEPS
    ]
    assert " ok" in shown.err
    assert "Traceback" not in shown.err


def test_as_json(anymq: Command, url: str) -> None:
    checks = anymq("doctor", "--json", "--url", url).data
    assert {frozenset(check) for check in checks} == {
        frozenset({"name", "outcome", "detail", "fix"})
    }
    outcomes = {check["name"]: check["outcome"] for check in checks}
    assert len(outcomes) == len(checks)
    assert {outcomes[step] for step in STEPS} == {"ok"}
    assert set(outcomes.values()) <= {"ok", "warning", "unknown"}


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats", "redis"])
def test_a_dead_broker(anymq: Command, scheme: str) -> None:
    shown = anymq("doctor", f"{scheme}://user:hunter2@127.0.0.1:1", code=1)
    assert "✗ TCP" in shown.out
    assert "- connection" in shown.out
    (fix,) = [line for line in shown.out.splitlines() if " fix: " in line]
    assert fix.endswith("and that it listens on this address and port")
    assert "hunter2" not in shown.out + shown.err


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats", "redis"])
def test_an_unknown_host(anymq: Command, scheme: str) -> None:
    shown = anymq("doctor", f"{scheme}://nosuch.invalid", code=1)
    assert "✗ name resolution" in shown.out
    assert "- TCP" in shown.out
    assert "fix: check the host" in shown.out


@pytest.mark.parametrize("backend", marked(*SERVERS))
def test_tls_to_a_port_without_it(anymq: Command, backend: str) -> None:
    shown = anymq("doctor", f"{TLS[backend]}://{address(backend)}?connect_timeout=5", code=1)
    assert "✓ TCP" in shown.out
    assert "✗ TLS" in shown.out
    assert "the scheme without TLS" in shown.out
    assert "- connection" in shown.out


@pytest.mark.parametrize("backend", marked("rabbitmq", "redis"))
def test_a_wrong_password(anymq: Command, backend: str) -> None:
    scheme = {"rabbitmq": "amqp"}.get(backend, backend)
    shown = anymq("doctor", f"{scheme}://guest:hunter2@{address(backend)}", code=1)
    assert "✗ connection" in shown.out
    assert "fix: check the user, the password" in shown.out
    assert "can create topics" not in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_an_unknown_scheme_and_a_bad_option(anymq: Command) -> None:
    assert "did you mean amqp://?" in anymq("doctor", "rabbit://localhost", code=2).out
    assert "did you mean 'timeout'" in anymq("doctor", "redis://localhost?timout=1", code=2).out


def test_no_broker_and_two_brokers(anymq: Command) -> None:
    assert "ANYMQ_URL" in anymq("doctor", code=2).err
    assert "named twice" in anymq("doctor", "memory://", "--url", "memory://", code=2).err


def test_the_broker_of_the_environment_and_of_an_app(
    anymq: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYMQ_URL", f"sqlite:///{tmp_path}/env.db")
    assert f"{tmp_path}/env.db" in anymq("doctor").out
    module = f"shop_{random_name('m').replace('-', '_')}"
    url = f"sqlite:///{tmp_path}/app.db"
    (tmp_path / f"{module}.py").write_text(f"import anymq\napp = anymq.App({url!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert f"{tmp_path}/app.db" in anymq("doctor", "--app", module).out
    (tmp_path / f"{module}_b.py").write_text("import anymq\napp = anymq.App()\n")
    assert f"{tmp_path}/env.db" in anymq("doctor", "--app", f"{module}_b").out
    anymq("context", "add", "dev", f"sqlite:///{tmp_path}/dev.db")
    assert f"{tmp_path}/env.db" in anymq("doctor").out
    assert f"{tmp_path}/dev.db" in anymq("doctor", "--context", "dev").out
    monkeypatch.delenv("ANYMQ_URL")
    assert f"{tmp_path}/dev.db" in anymq("doctor").out


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://app.db", "sqlite:///:memory:"])
def test_a_url_that_names_no_file(anymq: Command, url: str) -> None:
    shown = anymq("doctor", url, code=2)
    assert shown.out.startswith("✗ URL")


def test_a_file_that_cannot_be_used(anymq: Command, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for url in (f"sqlite:///{tmp_path}/text", f"sqlite:///{tmp_path}/nosuch/a.db"):
        shown = anymq("doctor", url, code=1)
        assert "fix: check the path" in shown.out
        assert "password" not in shown.out


def test_a_url_whose_variable_is_not_set(anymq: Command) -> None:
    assert "the URL is empty" in anymq("doctor", "", code=2).err


def test_a_prefix_for_the_temporary_topic(anymq: Command) -> None:
    assert "✓ can publish" in anymq("doctor", "memory://", "--prefix", "orders.").out
    assert "topic name" in anymq("doctor", "memory://", "--prefix", "#", code=2).err


def test_warnings_and_their_fixes(anymq: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db?synchronous=NORMAL"
    lines = anymq("doctor", url).out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("! forced writes")]
    assert lines[at + 1].strip() == "fix: leave synchronous=FULL, the default, in the URL"


def test_a_terminal_without_the_marks(tmp_path: Path) -> None:
    shown = run("doctor", f"sqlite:///{tmp_path}/ä.db", env={"PYTHONIOENCODING": "ascii"})
    assert shown.code == 0, shown
    assert shown.out.isascii()
    assert "ok   can publish" in shown.out
    assert "\\xe4.db" in shown.out
    dead = run("doctor", "nats://127.0.0.1:1", env={"PYTHONIOENCODING": "ascii"})
    assert dead.code == 1
    assert "FAIL TCP" in dead.out
    assert dead.err.strip() == "3 ok, 1 failed, 1 skipped"


def test_a_pipe_that_is_closed_early(tmp_path: Path) -> None:
    ours, its = os.pipe()
    os.close(ours)
    with start("doctor", f"sqlite:///{tmp_path}/a.db", stdout=its) as process:
        os.close(its)
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_an_escape_in_json_is_json(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ä.db"
    shown = run("doctor", "--json", url, env={"PYTHONIOENCODING": "ascii"})
    assert shown.out.isascii()
    assert shown.data[0]["detail"] == url


@pytest.mark.kafka
def test_ctrl_c_ends_it() -> None:
    prefix = f"{random_name()}-"
    url = f"kafka://{address('kafka')}"
    with start("doctor", url, "--prefix", prefix) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "can create topics" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_terminal_has_colours_unless_the_user_wants_none(tmp_path: Path) -> None:
    assert "\x1b[32m✓\x1b[0m URL " in in_terminal(f"sqlite:///{tmp_path}/a.db")
    assert "\x1b[" not in in_terminal(f"sqlite:///{tmp_path}/a.db", NO_COLOR="1")


def in_terminal(url: str, **changed: str) -> str:
    """Return what `anymq doctor` writes to a terminal."""
    ours, its = pty.openpty()
    changed = {"TERM": "xterm", "PYTHONUTF8": "1"} | changed
    process = subprocess.Popen(
        arguments_of("doctor", url), stdout=its, stderr=its, env=environment(**changed)
    )
    os.close(its)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:
        pass  # Linux's way to say that the other end is closed.
    finally:
        os.close(ours)
    assert process.wait(60) == 0, written
    return written.decode()
