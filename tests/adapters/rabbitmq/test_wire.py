"""The codec, against the client library's own."""

from __future__ import annotations

from datetime import UTC

import pamqp.body
import pamqp.frame
import pamqp.header
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from anymq_rabbitmq.client import codec

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
MOMENTS = st.integers(0, 4_000_000_000)


def frames(data: bytes) -> list[object]:
    found: list[object] = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 7
        found.append(frame)
        data = data[size:]
    return found


@given(
    headers=st.dictionaries(NAMES, TEXTS, max_size=5),
    content_type=st.none() | TEXTS.filter(lambda text: 0 < len(text.encode()) < 256),
    message_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    timestamp=MOMENTS,
    body=st.binary(max_size=2000),
    key=st.text(st.characters(codec="utf-8"), max_size=60),
)
def test_a_publish_is_what_the_client_library_reads(
    headers: dict[str, str],
    content_type: str | None,
    message_id: str,
    timestamp: int,
    body: bytes,
    key: str,
) -> None:
    properties = codec.encode(
        headers, content_type=content_type, message_id=message_id, timestamp=timestamp
    )
    room = 12 + len(properties)
    data = codec.publish(7, "orders", key, properties, body, frame_max=room + 8)
    with pytest.raises(codec.HeadersTooLarge):
        codec.publish(7, "orders", key, properties, body, frame_max=room + 7)
    method, header, *parts = frames(data)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == ("orders", key, True)
    assert isinstance(header, pamqp.header.ContentHeader)
    assert header.body_size == len(body)
    read = header.properties
    assert (read.headers or {}) == headers
    assert read.content_type == content_type
    assert read.message_id == message_id
    assert read.delivery_mode == 2
    assert read.timestamp is not None
    assert read.timestamp.timestamp() == timestamp
    assert all(isinstance(part, pamqp.body.ContentBody) for part in parts)
    assert b"".join(part.value for part in parts) == body  # type: ignore[attr-defined]
    assert all(len(part.value) <= room for part in parts)  # type: ignore[attr-defined]


PROPERTIES = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | st.just("text/plain"),
    content_encoding=st.none() | st.just("gzip"),
    headers=st.none()
    | st.dictionaries(
        NAMES,
        st.recursive(
            st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, width=32)
            | TEXTS
            | st.none()
            | st.datetimes(timezones=st.just(UTC)).filter(lambda moment: moment.year > 1970),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
            max_leaves=5,
        ),
        max_size=5,
    ),
    delivery_mode=st.none() | st.integers(1, 2),
    priority=st.none() | st.integers(0, 9),
    correlation_id=st.none() | st.just("c"),
    reply_to=st.none() | st.just("r"),
    expiration=st.none() | st.just("60000"),
    message_id=st.none() | st.just("m"),
    message_type=st.none() | st.just("t"),
    user_id=st.none() | st.just("guest"),
    app_id=st.none() | st.just("a"),
)


@given(PROPERTIES)
def test_what_the_client_library_writes_is_taken_apart_and_joined(
    properties: commands.Basic.Properties,
) -> None:
    data = properties.marshal()
    fields = codec.split(data)
    assert codec.join(fields) == data
    assert codec.text(fields.get(codec.MESSAGE_ID)) == properties.message_id
    table = fields.get(codec.HEADERS)
    headers = codec.headers(table)
    assert headers.keys() == (properties.headers or {}).keys()
    for name, value in (properties.headers or {}).items():
        if isinstance(value, str):
            assert headers[name] == value
    if table is not None:
        assert codec.table(codec.entries(table)) == table


def test_values_become_text() -> None:
    table = commands.Basic.Properties(
        headers={"i": 5, "t": True, "n": None, "l": [1, "x"], "f": {"a": 1}}
    ).marshal()
    assert codec.headers(codec.split(table)[codec.HEADERS]) == {
        "i": "5",
        "t": "true",
        "n": "",
        "l": '[1, "x"]',
        "f": '{"a": 1}',
    }


def test_bytes_that_are_no_text_are_shown() -> None:
    table = codec.table([(b"\xff", ord("S"), b"\x00\x00\x00\x02\xfe!")])
    assert codec.headers(table) == {"\\xff": "\\xfe!"}


def test_a_table_nested_to_absurdity_is_cut_off() -> None:
    inner = b"\x00\x00\x00\x00"
    for _ in range(5000):
        inner = codec.table([(b"a", ord("F"), inner)])
    assert "..." in codec.headers(inner)["a"]
