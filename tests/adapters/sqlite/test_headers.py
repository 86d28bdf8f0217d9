"""Headers as JSON text in rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import NO_SHARED_HEADERS, SharedHeaders
from anymq_sqlite.messages import JsonHeaders, encode_headers

_HEADERS = st.dictionaries(st.text(), st.text())


@given(_HEADERS, _HEADERS)
def test_they_are_stored_as_one_object(common: dict[str, str], own: dict[str, str]) -> None:
    for _ in range(2):
        assert json.loads(encode_headers(SharedHeaders(common), own)) == {**common, **own}
    assert encode_headers(NO_SHARED_HEADERS, own) == json.dumps(own)
    assert encode_headers(SharedHeaders(common), {}) == json.dumps(common)


@given(_HEADERS)
def test_they_come_back(headers: dict[str, str]) -> None:
    found = JsonHeaders(encode_headers(NO_SHARED_HEADERS, headers))
    assert found == headers
    assert dict(found) == headers
    assert {**found} == headers
    assert list(found.items()) == list(headers.items())
    assert len(found) == len(headers)
    assert repr(found) == repr(headers)
    assert all(name in found and found[name] == value for name, value in headers.items())


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        ('{"anymq-attempt": "3"}', "3"),
        ('{"\\u0061nymq-attempt": "3"}', "3"),
        ('{"anymq-attempt": 3}', "3"),
        ('{"x": "anymq-attempt"}', None),
        ('{"x": "\\"anymq-attempt"}', None),
        ("anymq", None),
        ("", None),
        ("[]", None),
    ],
)
def test_a_control_header_is_found_unread_or_read(text: str, attempt: str | None) -> None:
    headers = JsonHeaders(text)
    assert headers.get("anymq-attempt") == attempt
    assert JsonHeaders(text).get("anymq-attempt", "none") == (attempt or "none")
    list(headers)
    assert headers.get("anymq-attempt") == attempt


def test_control_headers_that_are_not_there_cost_no_reading() -> None:
    headers: Any = JsonHeaders('{"x": "y"}')
    assert headers.get("anymq-attempt") is None
    assert headers._found is None
