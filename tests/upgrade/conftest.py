"""The earlier version, and the backends whose data outlive a process."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from anymq.testing import random_name
from tests.conformance.servers import ServerHarness
from tests.upgrade.earlier import FOLDER, Earlier

SCHEMES = {"kafka": "kafka", "rabbitmq": "amqp", "nats": "nats", "redis": "redis"}


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    (wheel,) = FOLDER.glob("*.whl")
    folder = tmp_path_factory.mktemp("earlier")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return Earlier(folder)


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=getattr(pytest.mark, name)) for name in SCHEMES)]
)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(backend: str, tmp_path: Path) -> str:
    """The URL of the backend, on which a killed member loses its messages within seconds."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/anymq.db"
    harness = ServerHarness(backend, SCHEMES[backend])
    url = harness.url(tmp_path)
    return f"{url}{'&' if '?' in url else '?'}{harness.quick_loss}" if harness.quick_loss else url


@pytest.fixture
def run() -> str:
    """What the names of this test's topics begin with."""
    return random_name("upgrade")
