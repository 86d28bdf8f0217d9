"""Headers and acknowledgement subjects, as bytes."""

import string

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import SharedHeaders
from anymq_nats.client import protocol as wire
from anymq_nats.messages import Publication, encode_headers

_TOKEN = string.ascii_letters + string.digits + "!#$&'*+.^_`|~-"
_NAMES = st.text(_TOKEN, min_size=1, max_size=12)
_VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


@given(st.dictionaries(_NAMES, _VALUES, max_size=8))
def test_headers_arrive_as_they_were_sent(headers: dict[str, str]) -> None:
    message = Publication("subject", "1", b"", headers)
    assert wire.parse_headers(encode_headers(message)) == {wire.MESSAGE_ID: "1", **headers}


@pytest.mark.parametrize("value", ["a\r\nNats-Rollup: all", "a\nb", "a\rb", "\ud800"])
def test_what_would_break_the_header_block_is_refused(value: str) -> None:
    bad = {"x": value}
    for message in (
        Publication("subject", "1", b"", bad),
        Publication("subject", "1", b"", common=SharedHeaders(bad)),
        Publication("subject", "1", b"", extra=bad),
    ):
        with pytest.raises(nats.errors.BadHeaderError):
            encode_headers(message)
    with pytest.raises(nats.errors.BadHeaderError):
        encode_headers(Publication("subject", value, b""))


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (b"NATS/1.0\r\na:b\r\n\r\n", {"a": "b"}),
        (b"NATS/1.0\r\na: b\r\na: c\r\n\r\n", {"a": "b"}),
        (b"NATS/1.0\r\na:  b \r\n\r\n", {"a": " b "}),
        (b"NATS/1.0\r\na:b: c\r\nd: e\r\n\r\n", {"a": "b: c", "d": "e"}),
        (b"NATS/1.0\r\nno colon\r\na: b\r\n\r\n", {"a": "b"}),
        (b"NATS/1.0\r\na: \xff\r\n\r\n", {"a": "\\xff"}),
        (b"NATS/1.0\r\na: \r\n\r\n", {"a": ""}),
        (b"NATS/1.0\r\n\r\n", {}),
    ],
)
def test_headers_of_other_clients(block: bytes, headers: dict[str, str]) -> None:
    assert wire.parse_headers(block) == headers


def test_a_status_is_told_from_headers() -> None:
    assert wire.status(b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\n\r\n") == (
        408,
        "Request Timeout",
    )
    assert wire.status(b"NATS/1.0 503\r\n\r\n") == (503, "")
    assert wire.status(b"NATS/1.0\r\na: b\r\n\r\n") is None
    assert wire.status(None) is None


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.orders.billing.3.42.57.1763720000500000000.9",
        b"$JS.ACK.hub.ACCOUNT.orders.billing.3.42.57.1763720000500000000.9",
        b"$JS.ACK._.ACCOUNT.orders.billing.3.42.57.1763720000500000000.9.token",
    ],
)
def test_the_place_of_a_delivery(reply: bytes) -> None:
    assert wire.delivery_info(reply) == wire.DeliveryInfo(3, 42, 57, 1763720000.5, 9)
