"""Fixtures: each test has its own state folders, ports and servers, which end with it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

import brokers
from brokers import docker, native
from brokers.server import KINDS


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty state folder for instances; installed programs are shared."""
    folder = tmp_path / "state"
    monkeypatch.setenv("ANYMQ_BROKERS_STATE", str(folder))
    monkeypatch.setenv("ANYMQ_BROKERS_ENGINE", "native")
    monkeypatch.delenv("ANYMQ_BROKERS_INSTANCE", raising=False)
    docker.answers.cache_clear()
    return folder


@pytest.fixture
def instance(states: Path) -> Iterator[str]:
    """Yield the name of an instance that ends with the test."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    for kind in KINDS:
        if (states / name / kind).exists():
            native.Native(KINDS[kind], name).kill()


@pytest.fixture
def redis(instance: str) -> brokers.Server:
    return brokers.server("redis", instance)


@pytest.fixture
def nats(instance: str) -> brokers.Server:
    return brokers.server("nats", instance)
