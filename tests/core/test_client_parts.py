"""Private parts of client libraries: `connect` refuses a version without them."""

from __future__ import annotations

import types
from importlib.metadata import requires

import pytest

from anymq import ConfigurationError, MissingDependency, connect
from anymq.driver.client_parts import check_parts
from anymq.driver.registry import load_driver, load_store

from .scripted import ScriptedDriver

ADAPTERS = ("kafka", "amqp", "nats", "redis")


class Base:
    inherited: int

    def __init__(self) -> None:
        self._set_here = 1


class Client(Base):
    @property
    def shown(self) -> int:
        return self._behind

    async def start(self) -> None:
        self._set_later = 2

    _behind = 3


def test_private_parts_are_found_wherever_a_class_defines_them() -> None:
    names = ("inherited", "_set_here", "shown", "start", "_set_later", "_behind")
    check_parts({Client: names}, distribution="anymq")


def test_missing_private_parts_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"Client has no _gone, _moved") as caught:
        check_parts({Client: ("_moved", "start", "_gone")}, distribution="anymq")
    assert not isinstance(caught.value, MissingDependency)


async def test_connect_refuses_a_client_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedDriver, "client_parts", {Client: ("_moved",)})
    with pytest.raises(ConfigurationError, match="Client has no _moved"):
        await connect("scripted://h")


@pytest.mark.parametrize("scheme", ADAPTERS)
def test_the_error_has_the_tested_range(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = load_driver(scheme)
    owner = next(iter(driver.client_parts))
    monkeypatch.setattr(driver, "client_parts", {owner: ("_moved",)})
    with pytest.raises(
        ConfigurationError, match=r"_moved; run: pip install '[a-z-]+(\[\w+\])?[<>]\S+'"
    ):
        load_driver(scheme)


def test_every_store_and_driver_fits_the_installed_clients() -> None:
    for scheme in ADAPTERS:
        assert load_driver(scheme).client_parts
    assert load_store("redis").client_parts


def test_a_client_is_required_below_its_next_release() -> None:
    clients = ("aiokafka", "aio-pika", "aiormq", "pamqp", "yarl", "nats-py", "redis", "hiredis")
    requirements = [line for line in requires("anymq") or () if line.startswith(clients)]
    assert len({line.partition(";")[0] for line in requirements}) >= len(clients)
    assert all("<" in line.partition(";")[0] for line in requirements)


def test_a_moved_module_is_not_reported_as_a_missing_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load() -> None:
        raise ImportError("cannot import name 'Parser'", name="pydantic.gone")

    point = types.SimpleNamespace(
        value="moved_adapter:Driver",
        module="moved_adapter",
        dist=types.SimpleNamespace(name="anymq"),
        load=load,
    )
    monkeypatch.setattr("anymq.driver.registry._entry_points", lambda group, name=None: [point])
    with pytest.raises(ConfigurationError, match=r"^pydantic \S+ does not fit") as caught:
        load_driver("pointed")
    assert not isinstance(caught.value, MissingDependency)
    assert "cannot import name" in str(caught.value)
