"""Ports are fixed for `main`, and free ports kept for every other instance."""

from __future__ import annotations

from pathlib import Path

import pytest

import brokers
from brokers import BrokersError


def test_main_has_fixed_ports(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in brokers.NAMES:
        monkeypatch.delenv(f"ANYMQ_BROKERS_{name.upper()}_PORT", raising=False)
    assert [brokers.server(name).url for name in brokers.NAMES] == [
        "kafka://127.0.0.1:19092",
        "amqp://guest:guest@127.0.0.1:15673/",
        "nats://127.0.0.1:14222",
        "redis://127.0.0.1:16379/0",
    ]


def test_a_variable_overrides_the_port_of_main(
    states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYMQ_BROKERS_REDIS_PORT", "6390")
    assert brokers.server("redis").port == 6390
    assert brokers.server("redis", "other").port != 6390
    monkeypatch.setenv("ANYMQ_BROKERS_REDIS_PORT", "six")
    with pytest.raises(BrokersError, match="ANYMQ_BROKERS_REDIS_PORT=six is no port number"):
        _ = brokers.server("redis").port


def test_instances_keep_ports_of_their_own(states: Path) -> None:
    first = [brokers.server(name, "one").port for name in brokers.NAMES]
    second = [brokers.server(name, "two").port for name in brokers.NAMES]
    assert len({*first, *second}) == 8
    assert first == [brokers.server(name, "one").port for name in brokers.NAMES]


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-x", "x" * 41])
def test_an_instance_has_a_plain_name(name: str) -> None:
    with pytest.raises(BrokersError, match="no instance name"):
        brokers.server("redis", name)


def test_an_unknown_server_is_refused() -> None:
    with pytest.raises(BrokersError, match="there are kafka, rabbitmq, nats, redis"):
        brokers.server("pulsar")
