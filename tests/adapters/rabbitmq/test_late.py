"""What is encoded, cut and decoded fast is what the plain way gives."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anymq.driver import Record, SharedHeaders
from anymq_rabbitmq import convert, wire
from anymq_rabbitmq.arrived import Arrived, arrived
from anymq_rabbitmq.consumer import Consumer, Delivery
from anymq_rabbitmq.transport import _Splitter

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
        wire.DELIVER,
        tag.to_bytes(8, "big"),
        wire.short("orders"),
        wire.short("key"),
    )
    head = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + properties
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(
        (
            wire.frame(wire.METHOD, number, method),
            wire.frame(wire.HEADER, number, head),
            *(wire.frame(wire.BODY, number, part) for part in parts),
        )
    )


def delivery(properties: bytes, *, redelivered: bool = False) -> Delivery:
    method = wire.DELIVER + b"\x00" + (7).to_bytes(8, "big") + bytes([redelivered, 0, 0])
    made = Delivery(cast("Consumer", None), method)
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
        sent = convert.outgoing(record, exchange="e", routing_key="k").properties
        plain = convert._escaped(record)
        assert without_time(sent) == without_time(plain)
        one = delivery(sent, redelivered=redelivered)
        late = arrived(one)
        # A position of its own is what the quick way is not for.
        soon = convert.received(one, token=None, position=id or "?", partition=0)
        assert soon is not None
        if late is not None:
            assert late.fresh == soon.fresh
            assert late.position == convert.identity(one)
            for name in ("body", "headers", "time", "content_type", "redeliveries", "native"):
                assert getattr(late, name) == getattr(soon, name), name


def without_time(properties: bytes) -> dict[int, bytes]:
    fields = wire.split(properties)
    table = [entry for entry in wire.entries(fields[wire.HEADERS]) if entry[0] != b"anymq-time"]
    return fields | {wire.HEADERS: wire.table(table), wire.TIMESTAMP: b""}


def test_a_usual_record_takes_the_quick_way() -> None:
    record = Record(topic="t", id="1", unique="1", body=b"", headers={"cloudEvents:id": "1"})
    one = delivery(convert.outgoing(record, exchange="", routing_key="q").properties)
    assert isinstance(convert.received(one, token=one), Arrived)


def lone_consumer(taps: dict[int, Any], sweeps: dict[int, Any]) -> Consumer:
    def tap(tap: Any, sweep: Any) -> None:
        taps[7], sweeps[7] = tap, sweep

    closing = asyncio.get_running_loop().create_future()
    channel = SimpleNamespace(tap=tap, closing=closing, number=7, is_open=True)
    return Consumer(cast("Any", None), cast("Any", channel), "queue", {})


@pytest.mark.parametrize("piece", [1, 7, 22, 64, 100, 1000, 100_000])
async def test_deliveries_are_cut_the_same_however_they_come(piece: int) -> None:
    properties = wire.encode({"a": "b"}, content_type=None, message_id="1", timestamp=1)
    bodies = [b"", b"x", b"y" * 1000, b"z" * 2500, b"", b"w" * 999]
    other = wire.frame(wire.METHOD, 3, b"for somebody else")
    data = b"".join(
        other + deliver(7, tag, properties, body) for tag, body in enumerate(bodies, start=1)
    )
    reader = asyncio.StreamReader()
    taps: dict[int, Any] = {}
    sweeps: dict[int, Any] = {}
    consumer = lone_consumer(taps, sweeps)
    splitter = _Splitter(reader, taps, sweeps, 60.0)
    for at in range(0, len(data), piece):
        splitter.data_received(data[at : at + piece])
    taken = list(consumer.untaken)
    assert [one.tag for one in taken] == list(range(1, len(bodies) + 1))
    assert [one.body for one in taken] == bodies
    assert {one.properties for one in taken} == {properties}
    assert {(one.exchange, one.routing_key) for one in taken} == {(b"\x06orders", b"\x03key")}
    assert list(consumer.unsettled) == [one.tag for one in taken]
    passed = await reader.readexactly(len(other) * len(bodies))
    assert passed.replace(wire.HEARTBEAT, b"") == other * len(bodies)
