"""The wire format, also against the CloudEvents SDK."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from anymq import Message
from anymq.driver import Binding, Received, Record, attempt_of
from anymq.wire.cloudevents import decode, encode

BINDINGS = [
    Binding(prefix="ce_", native_key=True),
    Binding(prefix="ce-", content_type=None),
    Binding(prefix="ce-", content_type="ce-datacontenttype", percent=True),
    Binding(prefix="ce-"),
]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
MESSAGES = st.builds(
    Message,
    id=TEXT,
    topic=st.just("orders"),
    body=st.binary(max_size=50),
    key=st.none() | TEXT,
    content_type=st.none() | st.sampled_from(["application/json", "text/plain; charset=utf-8"]),
    type=TEXT,
    source=TEXT,
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
    correlation_id=st.none() | TEXT,
    causation_id=st.none() | TEXT,
    headers=st.dictionaries(st.from_regex(r"h[a-z0-9-]{0,9}", fullmatch=True), TEXT, max_size=3),
)


def back(record: Record, binding: Binding) -> Received:
    return Received(
        record.body,
        record.headers,
        position="7",
        token=None,
        key=record.key if binding.native_key else None,
        content_type=record.content_type if binding.content_type is None else None,
    )


@pytest.mark.parametrize("binding", BINDINGS, ids=str)
@given(message=MESSAGES)
def test_a_message_survives_the_wire(binding: Binding, message: Message) -> None:
    record = encode(message, binding, unique="u")
    again = decode(back(record, binding), binding, "orders")
    assert again == message
    if binding.percent:
        assert all(
            value.isascii() for name, value in record.headers.items() if name.startswith("ce-")
        )


@given(
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5),
    body=st.binary(max_size=20),
)
def test_any_foreign_message_is_accepted(headers: dict[str, str], body: bytes) -> None:
    for binding in BINDINGS:
        received = Received(body, headers, position="p:1", token=None)
        message = decode(received, binding, "orders")
        assert message.body == body
        assert message.id
        assert attempt_of(received) >= 1


def test_a_foreign_message_is_identified_by_its_position() -> None:
    message = decode(Received(b"x", {}, position="3:14", token=None), BINDINGS[0], "orders")
    assert (message.id, message.type, message.source, message.time) == (
        "orders@3:14",
        None,
        None,
        None,
    )


def test_unknown_attributes_are_kept_and_forwarded() -> None:
    headers = {"ce_id": "1", "ce_traceparent": "00-abc", "ce_subject": "s", "x": "y"}
    message = decode(Received(b"", headers, position="1", token=None), BINDINGS[0], "t")
    assert dict(message.headers) == {"ce-traceparent": "00-abc", "ce-subject": "s", "x": "y"}
    assert encode(message, BINDINGS[3], unique="u").headers["ce-traceparent"] == "00-abc"


def test_equal_times_of_two_zones_are_written_each_in_its_own() -> None:
    there = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    written = [
        encode(Message(id="1", topic="t", body=b"", time=time), Binding(), unique="1").headers
        for time in (there.astimezone(UTC), there)
    ]
    assert [headers["ce-time"] for headers in written] == [
        "2026-01-02T03:04:05Z",
        "2026-01-02T05:04:05+02:00",
    ]


def test_control_headers_are_hidden_from_the_application() -> None:
    headers = {"Nats-Msg-Id": "1", "x-death": "…", "anymq-attempt": "3", "anymq-dlq-reason": "r"}
    received = Received(b"", headers, position="1", token=None, redeliveries=2)
    message = decode(received, BINDINGS[1], "t")
    assert dict(message.headers) == {"anymq-dlq-reason": "r"}
    assert attempt_of(received) == 5


def test_kafka_headers_are_those_of_the_sdk() -> None:
    message = Message(
        id="1",
        topic="t",
        body=b'{"a":1}',
        type="T",
        source="/s",
        content_type="application/json",
        time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    record = encode(message, BINDINGS[0], unique="u")
    wire = KafkaMessage(
        headers={name: value.encode() for name, value in record.headers.items()},
        key=None,
        value=record.body,
    )
    event = from_binary_event(wire, JSONFormat())
    assert (event.get_id(), event.get_type(), event.get_source()) == ("1", "T", "/s")
    assert event.get_time() == message.time
    assert event.get_data() == {"a": 1}
    of_sdk = to_binary_event(event, JSONFormat())
    headers = {name: value.decode() for name, value in of_sdk.headers.items()}
    received = Received(bytes(of_sdk.value or b""), headers, position="1", token=None)
    again = decode(received, BINDINGS[0], "t")
    assert (again.id, again.type, again.source, again.time) == ("1", "T", "/s", message.time)
    assert again.content_type == "application/json"


@pytest.mark.parametrize("binding", BINDINGS)
def test_structured_mode_of_the_sdk_is_read(binding: Binding) -> None:
    event = CloudEvent(
        {
            "id": "sdk ü%",
            "source": "/sdk",
            "type": "OrderPlaced",
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "partitionkey": "pk",
            "tenant": "x",
        },
        {"n": 7},
    )
    sent = to_structured_event(event, JSONFormat())
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    found = decode(_structured(sent.value, headers), binding, "orders")
    assert (found.id, found.source, found.type) == ("sdk ü%", "/sdk", "OrderPlaced")
    assert (found.key, found.content_type) == ("pk", "application/json")
    assert (found.body, dict(found.headers)) == (b'{"n":7}', {"ce-tenant": "x"})


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b'"datacontenttype":"text/plain","data":"\xc3\xbc"', "ü".encode()),
        (b'"data":"text"', b'"text"'),
        (b'"data":null', b"null"),
        (b'"data_base64":"AP8="', b"\x00\xff"),
        (b'"subject":"s"', b""),
    ],
)
def test_the_data_of_structured_mode_is_the_body(data: bytes, body: bytes) -> None:
    whole = b'{"specversion":"1.0","id":"1","source":"s","type":"t",%b}' % data
    received = _structured(whole, {"content-type": "application/cloudevents+json"})
    assert decode(received, BINDINGS[0], "orders").body == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"specversion":',
        b'["specversion"]',
        b'"specversion"\xff',
        b"[" * 100_000 + b'"specversion"',
        b'{"specversion":"1.0","data_base64":"?"}',
        b'{"specversion":"1.0","data_base64":7}',
    ],
)
def test_an_invalid_structured_event_is_delivered_unparsed(body: bytes) -> None:
    received = _structured(body, {"content-type": "application/cloudevents+json"})
    found = decode(received, BINDINGS[0], "orders")
    assert (found.id, found.body) == ("orders@7", body)


def _structured(body: bytes, headers: dict[str, str]) -> Received:
    return Received(body, headers, position="7", token=None)
