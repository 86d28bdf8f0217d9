"""Connecting: schemes, options, credentials, and errors that name the next step."""

from __future__ import annotations

import sys
import types

import pytest

from anymq import (
    AccessDenied,
    ConfigurationError,
    ConnectionLost,
    InvalidURL,
    MissingDependency,
    UnknownScheme,
    connect,
    register,
)
from anymq.driver.registry import load_driver, load_store, schemes
from anymq.store_pool import StorePool

from .scripted import Lost, Refused, ScriptedDriver


async def test_an_unknown_scheme_lists_what_is_installed() -> None:
    with pytest.raises(UnknownScheme, match=r"rabit://.*memory://.*sqlite://") as caught:
        await connect("rabit://user:hunter2@h")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UnknownScheme, match="did you mean kafka://"):
        await connect("kafak://h")


@pytest.mark.parametrize(
    ("scheme", "meant"),
    [
        ("rabbit", "amqp"),
        ("rabbitmq", "amqp"),
        ("rabit", "amqp"),
        ("rabbitmqs", "amqps"),
        ("jetstream", "nats"),
        ("jetsream", "nats"),
        ("redis+ssl", "rediss"),
        ("kafka+tls", "kafka+ssl"),
        ("sqlite3", "sqlite"),
        ("kafak", "kafka"),
    ],
)
async def test_a_scheme_of_another_tool_names_ours(scheme: str, meant: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        await connect(f"{scheme}://user:hunter2@h")
    assert str(caught.value).endswith(f"(did you mean {meant}://?)")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "mysql", "mongodb", "sqs", "http"])
async def test_a_scheme_without_a_backend_lists_those_that_have_one(scheme: str) -> None:
    with pytest.raises(UnknownScheme) as caught:
        await connect(f"{scheme}://user:hunter2@h")
    text = str(caught.value)
    assert text.startswith(f"{scheme}:// has no adapter installed; the schemes")
    assert "did you mean" not in text
    assert all(f"{known}://" in text for known in schemes())


def test_every_scheme_of_the_wheel_is_known() -> None:
    expected = ["amqp", "amqps", "kafka", "kafka+ssl", "memory", "nats", "redis"]
    expected += ["rediss", "sqlite", "tls"]
    assert set(expected) <= set(schemes())
    assert load_store("sqlite").__name__ == "SqliteStore"


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "anymq_kafka"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(MissingDependency, match=r"pip install 'anymq\[kafka\]'"):
        load_driver("kafka")


def test_a_registered_class_must_be_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("not_an_adapter")
    module.Thing = int  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "not_an_adapter", module)
    register("thing", "not_an_adapter:Thing")
    with pytest.raises(ConfigurationError, match="not a Driver"):
        load_driver("thing")


async def test_options_are_checked() -> None:
    async with connect("scripted://h?size=3&declare=false"):
        pass
    with pytest.raises(InvalidURL, match=r"unknown option 'sise'.*did you mean 'size'.*declare"):
        await connect("scripted://h?sise=3")
    with pytest.raises(InvalidURL, match="size") as caught:
        await connect("scripted://h?size=hunter2")
    assert "hunter2" not in str(caught.value)


async def test_credentials_over_an_unencrypted_connection_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="allow_insecure_auth") as caught:
        await connect("scripted://user:hunter2@broker.example")
    assert "hunter2" not in str(caught.value)
    for url in (
        "scripted://user:hunter2@broker.example?allow_insecure_auth=true",
        "scripted://user:hunter2@localhost",
    ):
        async with connect(url) as broker:
            assert "hunter2" not in f"{broker!r} {broker.url}"


async def test_credentials_of_stores_over_an_unencrypted_connection_are_refused() -> None:
    stores = StorePool()
    with pytest.raises(ConfigurationError, match="clear text") as caught:
        await stores.get("redis://user:hunter2@store.example")
    assert "hunter2" not in str(caught.value)


async def test_a_failure_to_connect_names_the_url_and_the_next_step() -> None:
    ScriptedDriver.opening.append(Lost("refused"))
    with pytest.raises(
        ConnectionLost,
        match=r"user:\*\*\*@localhost\?connect_timeout=0\.3: refused; check that",
    ) as one:
        await connect("scripted://user:hunter2@localhost?connect_timeout=0.3")
    assert isinstance(one.value.__cause__, Lost)
    ScriptedDriver.opening.append(AccessDenied("who are you"))
    with pytest.raises(AccessDenied, match="check the user and password"):
        await connect("scripted://user:hunter2@localhost")
    ScriptedDriver.opening.append(Refused("no"))
    with pytest.raises(Exception, match="no"):
        await connect("scripted://localhost")


async def test_mapped_names_are_not_created() -> None:
    async with connect("memory://mapped") as other:
        await other.publish("legacy", "old")
        async with connect("memory://mapped", names={"orders": "legacy"}) as broker:
            await broker.publish("orders", "new")
            async with broker.subscribe("orders", group="g") as deliveries:
                bodies = [(await anext(deliveries)).message.body for _ in range(2)]
            assert bodies == [b"old", b"new"]
        async with connect("memory://mapped", names={"orders": "nowhere"}) as broker:
            with pytest.raises(Exception, match="does not exist"):
                await broker.publish("orders", "x")
