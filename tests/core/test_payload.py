"""Payloads and handlers by annotation."""

from __future__ import annotations

import sys
import typing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, PlainSerializer
from typing_extensions import TypedDict

from anymq import ConfigurationError, Delivery, Message, Reject, Topic, connect
from anymq.consuming.handlers import adapt
from anymq.payload import check_payload, decode_body, decode_payload, encode_payload, type_name


class Model(BaseModel):
    price: Decimal


@dataclass
class Data:
    name: str
    model: Model


class Typed(TypedDict):
    n: int


class OfTyping(typing.TypedDict):
    n: int


def message(body: bytes, type: str | None = None) -> Message:
    return Message(id="1", topic="t", body=body, type=type)


@pytest.mark.parametrize(
    ("payload", "annotation"),
    [
        (Model(price=Decimal("1.10")), Model),
        (Data("ü", Model(price=Decimal("0.1"))), Data),
        ({"n": 1}, Typed),
        ({"a": [1, None, "x"]}, dict),
        ([1, 2], list[int]),
        ("text ü", str),
        (b"\x00\xff", bytes),
        (7, int),
        (None, type(None)),
    ],
)
def test_payloads_survive_encoding_and_decoding(payload: Any, annotation: Any) -> None:
    body, _ = encode_payload(payload)
    assert decode_payload(message(body), annotation) == payload


def test_the_content_type_follows_the_payload() -> None:
    assert encode_payload({"a": 1}) == (b'{"a":1}', "application/json")
    assert encode_payload("a")[1].startswith("text/plain")
    assert encode_payload(b"a")[1] == "application/octet-stream"
    assert encode_payload(bytearray(b"a"))[0] == b"a"


def test_payloads_that_cannot_be_encoded_are_refused() -> None:
    for payload in (object(), {"a": object()}, lambda: None):
        with pytest.raises(ConfigurationError, match="cannot be published"):
            encode_payload(payload)


def test_invalid_bodies_are_rejected_without_being_quoted() -> None:
    for body in (b"", b"{", b"\xff", b'{"price": "hunter2"}', b"[" * 100_000):
        with pytest.raises(Reject) as caught:
            decode_payload(message(body), Model)
        assert "hunter2" not in caught.value.reason
    with pytest.raises(Reject, match="not UTF-8"):
        decode_payload(message(b"\xff"), str)


def test_a_union_follows_the_type() -> None:
    class A(BaseModel):
        n: int = 0

    class B(BaseModel):
        n: int = 0

    assert isinstance(decode_payload(message(b"{}", "B"), A | B), B)
    assert isinstance(decode_payload(message(b"{}", "A"), A | B), A)
    assert isinstance(decode_payload(message(b"{}"), A | B), A)
    with pytest.raises(Reject, match="unknown type 'unheard of'"):
        decode_payload(message(b"{}", "unheard of"), A | B)


def test_topics_check_their_payloads() -> None:
    check_payload(Model(price=Decimal(1)), Topic("t", Model))
    check_payload({"n": 1}, Topic("t", Typed))
    check_payload("x", Topic("t", str | int))
    for payload, kind in (({"n": 1}, Model), ({"n": "x"}, Typed), (1.5, str | int)):
        with pytest.raises(ConfigurationError):
            check_payload(payload, Topic("t", kind))
    assert type_name(Model(price=Decimal(1)), "t") == "Model"
    assert type_name({}, "t") == "t"


async def good(order: Model, delivery: Delivery, message: Message) -> None: ...
async def plain(order) -> None: ...  # type: ignore[no-untyped-def]
async def nothing() -> None: ...
async def two(a: Model, b: Data) -> None: ...
async def unresolved(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def sync(a: Model) -> None: ...


def test_handlers_are_checked_when_registered() -> None:
    for function in (good, plain, nothing):
        adapt(function, Topic("t"))
    for bad, reason in (
        (two, "more than one payload"),
        (sync, "must be an async function"),
        (unresolved, "cannot be resolved"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            adapt(bad, Topic("t"))  # type: ignore[arg-type]


def test_the_typed_dict_of_typing_is_taken_or_refused_with_the_reason() -> None:
    """Before Python 3.12 pydantic needs the `TypedDict` of `typing_extensions`."""
    topic = Topic("t", OfTyping)
    if sys.version_info >= (3, 12):
        check_payload({"n": 1}, topic)
        return
    with pytest.raises(ConfigurationError, match=r"typing_extensions\.TypedDict"):
        check_payload({"n": 1}, topic)


class Open(BaseModel):
    any: Any = None
    bare: dict = {}  # type: ignore[type-arg]
    rows: list = []  # type: ignore[type-arg]
    at: datetime | None = None
    inner: Open | None = None
    shown: Annotated[Any, PlainSerializer(str)] = None


@dataclass
class OpenData:
    held: Any


@pytest.mark.parametrize(
    "payload",
    [
        Open(any={"a": [1, "x", None, 2.5]}, bare={"a": 1}, rows=[True], at=datetime.now(UTC)),
        Open(shown=datetime.now(UTC)),
        OpenData({"a": [1]}),
    ],
)
def test_a_field_of_any_type_survives_unchanged(payload: Any) -> None:
    body, _ = encode_payload(payload)
    again = decode_body(body, type(payload))
    if isinstance(payload, Open):
        again.shown = payload.shown
    assert again == payload


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (Open(any=datetime.now(UTC)), "'any'"),
        (Open(any=[(1, 2)]), "'any'"),
        (Open(bare={"at": datetime.now(UTC)}), "'bare'"),
        (Open(rows=[uuid4()]), "'rows'"),
        (Open(inner=Open(any={1, 2})), "'inner'"),
        (OpenData(Decimal("1.5")), "'held'"),
    ],
)
def test_values_that_json_would_change_are_refused(payload: Any, field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} would be decoded as another type"):
        encode_payload(payload)


class Line(BaseModel):
    article: str
    count: int


class Note(BaseModel):
    text: str


def test_a_message_decodes_its_body() -> None:
    line = Message(id="1", topic="t", type="Line", body=b'{"article":"tea","count":2}')
    assert line.decode(Line) == Line(article="tea", count=2)
    assert line.decode(dict) == {"article": "tea", "count": 2}
    assert line.decode(Line | Note) == Line(article="tea", count=2)
    assert line.decode(bytes) == line.body
    assert line.decode(str) == line.body.decode()


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b'{"article":"tea"}', Line, "invalid payload: count: Field required"),
        (b"\xff", str, "invalid payload: not UTF-8 text"),
        (b"", Line, "invalid payload: body: Invalid JSON"),
        (b"{}", Model | Note, "unknown type 'Line': the handler takes Model, Note"),
    ],
)
def test_a_body_of_another_kind_is_rejected_with_the_reason(
    body: bytes, kind: Any, reason: str
) -> None:
    with pytest.raises(Reject, match=reason):
        Message(id="1", topic="t", type="Line", body=body).decode(kind)


@pytest.mark.parametrize("kind", [5, [int], object()])
def test_what_is_no_payload_type_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="payload type"):
        Message(id="1", topic="t", body=b"{}").decode(kind)


async def test_a_delivery_decodes_its_message() -> None:
    async with connect("memory://") as broker:
        await broker.publish("t", Line(article="tea", count=2))
        async with broker.subscribe("t", group="g") as deliveries:
            async for delivery in deliveries:
                assert delivery.decode(Line).count == 2
                await delivery.ack()
                break
