"""What is read of a message only when somebody asks."""

from __future__ import annotations

from typing import Any, cast

import pytest

from anymq_nats.connection import Connection
from anymq_nats.messages import Delivered, Headers, Publication, encode_headers

_REPLY = b"$JS.ACK.orders.billing.3.42.57.1763720000500000000.9"


def block(**headers: str) -> bytes:
    return encode_headers(
        Publication("a", "1", b"", {k.replace("_", "-"): v for k, v in headers.items()})
    )


def delivered(**headers: str) -> Delivered:
    nowhere = cast(Connection, type("Nowhere", (), {"client": None})())
    return Delivered(nowhere, b"orders", _REPLY, b"body", block(**headers), 0.0)


def test_it_says_what_the_server_said() -> None:
    item = delivered(ce_id="7")
    assert (item.position, item.time, item.redeliveries) == ("42", 1763720000.5, 2)
    assert (item.key, item.content_type, item.partition) == (None, None, 0)
    assert item.token is item
    assert item.headers == {"Nats-Msg-Id": "1", "ce-id": "7"}
    assert item.native.subject == "orders"
    assert item.native.headers == {"Nats-Msg-Id": "1", "ce-id": "7"}
    item.redeliveries = 5
    assert item.redeliveries == 5
    with pytest.raises(AttributeError):
        _ = item.nothing


@pytest.mark.parametrize("first", [True, False])
def test_headers_are_the_same_read_or_not(first: bool) -> None:
    wanted = {"Nats-Msg-Id": "1", "x": "y", "anymq-attempt": "3"}
    headers = Headers(block(x="y", anymq_attempt="3"))
    if first:
        assert headers.get("anymq-attempt") == "3"
    assert headers.get("anymq-only-group") is None
    assert headers.get("anymq-only-group", "none") == "none"
    assert headers == wanted
    assert dict(headers) == wanted
    assert {**headers} == wanted
    assert list(headers.items()) == list(wanted.items())
    assert len(headers) == 3
    assert "x" in headers
    assert headers["x"] == "y"
    assert repr(headers) == repr(wanted)


def test_control_headers_that_are_not_there_cost_no_reading() -> None:
    headers: Any = Headers(block(x="anymq-attempt"))
    assert headers.get("anymq-attempt") is None
    assert headers._found is None
    assert headers.get("x") == "anymq-attempt"
    assert headers.get("anymq-attempt") is None


def test_no_headers_at_all() -> None:
    assert Headers(None) == {}
    assert Headers(None).get("anymq-attempt") is None


@pytest.mark.parametrize(
    "lines",
    [
        "ce-id: 7",
        "ce-id:7",
        "ce-id:  7",
        "x: ce-id: 9\r\nce-id: 7",
        "ce-id: 7\r\nce-id: 8",
        "ce-id:7\r\nce-id: 8",
        "Ce-Id: 7",
        "ce-id: ",
        "ce-ids: 7",
    ],
)
def test_one_header_is_the_one_that_reading_all_finds(lines: str) -> None:
    nowhere = cast(Connection, None)
    raw = f"NATS/1.0\r\n{lines}\r\n\r\n".encode()
    item = Delivered(nowhere, b"orders", _REPLY, b"", raw, 0.0)
    assert item.header("ce-id") == item.headers.get("ce-id")
    assert Delivered(nowhere, b"orders", _REPLY, b"", None, 0.0).header("ce-id") is None
