"""What is encoded, cut and decoded fast is what the plain way gives."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anymq.driver import Record, SharedHeaders
from anymq_rabbitmq import messages
from anymq_rabbitmq.client import codec
from anymq_rabbitmq.client.fetcher import Delivery, Fetcher
from anymq_rabbitmq.client.transport import _FrameSplitter
from anymq_rabbitmq.messages import LazyReceived, lazy_received

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(
    [
        *("CC", "x-death", "anymq-attempt", "anymq-only-group", "anymq-redeliveries", "anymq-time"),
        *("cloudEvents:source", "cloudEvents_id", "anymq-header-CC", "ce-id"),
    ]
)
HEADERS = st.dictionaries(NAMES, TEXTS, max_size=5)


def deliver(number: int, tag: int, properties: bytes, body: bytes, *, size: int = 1000) -> bytes:
    method = b"%b\x03ctg%b\x00%b%b" % (
        codec.DELIVER,
        tag.to_bytes(8, "big"),
        codec.short_text("orders"),
        codec.short_text("key"),
    )
    head = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + properties
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(
        (
            codec.frame(codec.METHOD, number, method),
            codec.frame(codec.HEADER, number, head),
            *(codec.frame(codec.BODY, number, part) for part in parts),
        )
    )


def delivery(properties: bytes, *, redelivered: bool = False) -> Delivery:
    method = codec.DELIVER + b"\x00" + (7).to_bytes(8, "big") + bytes([redelivered, 0, 0])
    made = Delivery(cast("Fetcher", None), method)
    made.properties, made.body = properties, b"body"
    return made


@given(
    common=HEADERS,
    own=HEADERS,
    content_type=st.none() | st.just("text/plain") | st.just("x" * 300) | st.just(""),
    id=TEXTS | st.just("y" * 300),
    redelivered=st.booleans(),
)
@example(common={"a": "1"}, own={"b": "2"}, content_type="c", id="d", redelivered=False)
def test_a_record_arrives_late_as_it_would_at_once(
    common: dict[str, str],
    own: dict[str, str],
    content_type: str | None,
    id: str,
    redelivered: bool,
) -> None:
    own = {name: value for name, value in own.items() if name not in common}
    for _ in range(2):
        record = Record(
            topic="t",
            id=id,
            unique=id,
            body=b"body",
            headers=own,
            common=SharedHeaders(common),
            content_type=content_type,
        )
        sent = messages.outgoing(record, exchange="e", routing_key="k").properties
        plain = messages._escaped(record)
        assert without_time(sent) == without_time(plain)
        one = delivery(sent, redelivered=redelivered)
        late = lazy_received(one)
        # A position of its own is what the quick way is not for.
        soon = messages.received(one, token=None, position=id or "?", partition=0)
        assert soon is not None
        if late is not None:
            assert late.fresh == soon.fresh
            assert late.position == messages.message_id(one)
            for name in ("body", "headers", "time", "content_type", "redeliveries", "native"):
                assert getattr(late, name) == getattr(soon, name), name


def without_time(properties: bytes) -> dict[int, bytes]:
    fields = codec.split(properties)
    table = [entry for entry in codec.entries(fields[codec.HEADERS]) if entry[0] != b"anymq-time"]
    return fields | {codec.HEADERS: codec.table(table), codec.TIMESTAMP: b""}


def test_a_usual_record_takes_the_quick_way() -> None:
    record = Record(topic="t", id="1", unique="1", body=b"", headers={"cloudEvents:id": "1"})
    one = delivery(messages.outgoing(record, exchange="", routing_key="q").properties)
    assert isinstance(messages.received(one, token=one), LazyReceived)


def lone_fetcher(taps: dict[int, Any], bulk_taps: dict[int, Any]) -> Fetcher:
    def tap(tap: Any, bulk_tap: Any) -> None:
        taps[7], bulk_taps[7] = tap, bulk_tap

    closing = asyncio.get_running_loop().create_future()
    channel = SimpleNamespace(tap=tap, closing=closing, number=7, is_open=True)
    return Fetcher(cast("Any", None), cast("Any", channel), "queue", {})


@pytest.mark.parametrize("piece", [1, 7, 22, 64, 100, 1000, 100_000])
async def test_deliveries_are_cut_the_same_however_they_come(piece: int) -> None:
    properties = codec.encode({"a": "b"}, content_type=None, message_id="1", timestamp=1)
    bodies = [b"", b"x", b"y" * 1000, b"z" * 2500, b"", b"w" * 999]
    other = codec.frame(codec.METHOD, 3, b"for somebody else")
    data = b"".join(
        other + deliver(7, tag, properties, body) for tag, body in enumerate(bodies, start=1)
    )
    reader = asyncio.StreamReader()
    taps: dict[int, Any] = {}
    bulk_taps: dict[int, Any] = {}
    fetcher = lone_fetcher(taps, bulk_taps)
    splitter = _FrameSplitter(reader, taps, bulk_taps, 60.0)
    for at in range(0, len(data), piece):
        splitter.data_received(data[at : at + piece])
    taken = list(fetcher.buffered)
    assert [one.tag for one in taken] == list(range(1, len(bodies) + 1))
    assert [one.body for one in taken] == bodies
    assert {one.properties for one in taken} == {properties}
    assert {(one.exchange, one.routing_key) for one in taken} == {(b"\x06orders", b"\x03key")}
    assert list(fetcher.unsettled) == [one.tag for one in taken]
    passed = await reader.readexactly(len(other) * len(bodies))
    assert passed.replace(codec.HEARTBEAT, b"") == other * len(bodies)
