"""Fixtures of the command's tests: a backend's URL, and the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from anymq.testing import random_name
from anymq_memory.space import Space
from brokers import server
from brokers.state import home as installed
from tests.cli.support import BACKEND_PARAMETERS, SERVERS, Command

# Fewer partitions save time on Kafka; a new queue that is relied on at once saves it on RabbitMQ.
OPTIONS = {"kafka": "?partitions=3", "rabbitmq": "?settle_time=0"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without contexts and without settings."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("ANYMQ_BROKERS_HOME", str(installed()))
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(folder))
    for name in ("ANYMQ_URL", "ANYMQ_URL_FILE", "ANYMQ_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(params=BACKEND_PARAMETERS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    name: str = request.param
    return name


@pytest.fixture
def url(backend: str, tmp_path: Path) -> Iterator[str]:
    """The URL of the backend, which keeps its messages from one command to the next."""
    if backend in SERVERS:
        running = server(backend)
        running.up()
        yield running.url + OPTIONS.get(backend, "")
    elif backend == "sqlite":
        yield f"sqlite:///{tmp_path}/anymq.db"
    else:
        name = random_name()
        space = Space.join(name)
        yield f"memory://{name}"
        space.leave()


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return random_name()


@pytest.fixture
def anymq(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in this process."""
    return Command(capsys, monkeypatch)
