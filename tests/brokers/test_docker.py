"""Where a Docker engine answers, the commands that it gets. The engine here is a script."""

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
    """The commands that the engine got, one a line; `ps` beside it is what it answers to ps."""
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
    # Without the port that each carries in its environment, and the file.
    return [line.partition(" ")[2].replace(file, "") for line in lines]


def test_the_life_of_a_container(log: Path) -> None:
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


def test_the_port_goes_along(log: Path) -> None:
    redis = brokers.server("redis", "other")
    redis.down()
    assert log.read_text().splitlines()[-1].startswith(f"{redis.port} compose")


def test_an_engine_that_does_not_answer(log: Path) -> None:
    (log.with_name("bin") / "docker").write_text("#!/bin/sh\nexit 1\n")
    assert not docker.answers()
