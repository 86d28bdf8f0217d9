"""The names of clients and members, and the source that follows from the application's name."""

from __future__ import annotations

import re

import pytest

from anymq import App, ConfigurationError, connect
from anymq.client_name import client_name
from anymq.testing import TestBroker


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("orders", "orders"),
        (None, "anymq"),
        ("Our shop: \u00d6rders/\u00fc", "Our-shop-rders"),
        ("--.-", "anymq"),
        ("\u6ce8\u6587", "anymq"),
        ("x" * 500, "x" * 63),
        ("x" * 62 + "--y", "x" * 62),
    ],
)
def test_a_name_suits_every_broker(name: str | None, begin: str) -> None:
    found = client_name(name)
    assert re.fullmatch(rf"{re.escape(begin)}-[A-Za-z0-9._-]+-[0-9]+-[a-z0-9]{{8}}", found)
    assert len(found) <= 150
    assert client_name(name) != found


@pytest.mark.parametrize("host", ["web1.example.com", "Bob\u2019s-Mac", "-", "h" * 300])
def test_any_host_name_is_made_to_fit(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    found = client_name("orders")
    assert re.fullmatch(r"orders-[A-Za-z0-9-]{1,63}-[0-9]+-[a-z0-9]{8}", found)
    assert "example" not in found


@pytest.mark.parametrize(
    ("url", "name", "source", "expected"),
    [
        ("memory://", None, None, "anymq"),
        ("memory://", "orders", None, "orders"),
        ("memory://?source=of-url", "orders", None, "of-url"),
        ("memory://?source=of-url", "orders", "of-code", "of-code"),
        ("memory://?source=of-url", None, None, "of-url"),
    ],
)
async def test_the_source_of_messages(
    url: str, name: str | None, source: str | None, expected: str
) -> None:
    async with connect(url, name=name, source=source) as broker:
        await broker.publish("t", "x")
        (stored,) = [stored async for stored in broker.admin.browse("t")]
        assert stored.message.source == broker.source == expected


async def test_an_app_gives_its_broker_its_name() -> None:
    app = App(name="orders", version="1.4")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    assert (app.name, app.version) == ("orders", "1.4")
    async with TestBroker(app) as broker:
        assert app.broker.name.startswith("orders-")
        assert app.broker.source == "orders"
        assert app.subscriptions[0].member == f"{app.broker.name}-1"
        info = await broker.broker.admin.describe("t", "g")
        assert [member.name for member in info.members or ()] == [f"{app.broker.name}-1"]


@pytest.mark.parametrize("wrong", ["", "a\nb", 5])
def test_a_bad_name_is_refused_at_once(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        App(name=wrong)  # type: ignore[arg-type]  # pyright: ignore
    with pytest.raises(ConfigurationError, match="version"):
        App(version=wrong)  # type: ignore[arg-type]  # pyright: ignore


async def test_connect_refuses_a_bad_name() -> None:
    with pytest.raises(ConfigurationError, match="name"):
        await connect("memory://", name="")
