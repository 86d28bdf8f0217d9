"""The commands sent to a Docker engine, which is a script here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import brokers
from brokers import State, docker
from brokers.redis import Redis

_FAKE = """#!/bin/sh
echo "$ANYMQ_BROKERS_REDIS_PORT $*" >> {log}
case "$*" in
*" ps "*) cat {ps} ;;
*" logs "*) echo one line ;;
esac
"""


@pytest.fixture
def log(states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the log of commands, one per line; the file `ps` beside it is the answer to ps."""
    (tmp_path / "ps").touch()
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(_FAKE.format(log=tmp_path / "log", ps=tmp_path / "ps"))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("ANYMQ_BROKERS_ENGINE")
    monkeypatch.setattr(Redis, "ready", lambda self, port, timeout: None)
    docker.answers.cache_clear()
    yield tmp_path / "log"
    docker.answers.cache_clear()


def commands(log: Path) -> list[str]:
    file = f"-f {Path(brokers.__file__).with_name('compose.yaml')} "
    lines = log.read_text().splitlines()
    log.unlink()
    # Without the port from the environment and the compose file.
    return [line.partition(" ")[2].replace(file, "") for line in lines]


def test_each_action_is_a_compose_command(log: Path) -> None:
    redis = brokers.server("redis", "Other")
    compose, ps = "compose -p anymq-other", log.with_name("ps")
    listing = f"{compose} ps --all --format json redis"
    start = f"{compose} up --detach --quiet-pull redis"

    assert redis.up()
    assert commands(log) == ["info", "compose version", listing, start]
    ps.write_text('{"State":"running","Image":"redis:8.2","CreatedAt":"2026-01-02 03:04:05 +0000"}')
    assert not redis.up()
    assert commands(log) == [listing, start]

    status = redis.status()
    assert (status.state, status.version, status.pid) == (State.RUNNING, "8.2", None)
    assert status.uptime is not None
    log.unlink()

    redis.kill()
    redis.pause()
    redis.resume()
    assert commands(log) == [
        listing,
        f"{compose} kill redis",
        f"{compose} pause redis",
        f"{compose} unpause redis",
    ]
    redis.restart()
    assert commands(log) == [f"{compose} rm --stop --force redis", start]
    redis.reset()
    assert commands(log) == [
        listing,
        f"{compose} kill redis",
        f"{compose} rm --force redis",
        "volume rm --force anymq-other_redis",
        start,
    ]
    redis.down()
    assert commands(log) == [f"{compose} rm --stop --force redis"]
    assert redis.logs(7) == "one line"
    assert commands(log) == [f"{compose} logs --no-log-prefix --tail 7 redis"]


def test_the_port_is_in_the_environment(log: Path) -> None:
    redis = brokers.server("redis", "other")
    redis.down()
    assert log.read_text().splitlines()[-1].startswith(f"{redis.port} compose")


def test_a_failing_engine_is_not_used(log: Path) -> None:
    (log.with_name("bin") / "docker").write_text("#!/bin/sh\nexit 1\n")
    assert not docker.answers()
