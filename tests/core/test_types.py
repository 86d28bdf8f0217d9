"""Dispatch by message type, and values that JSON cannot represent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

import anymq
from anymq import App, ConfigurationError, Delivery, Message, Reject
from anymq.consuming.handlers import adapt
from anymq.payload import decode_payload, encode_payload, type_name
from anymq.testing import TestBroker


class Placed(BaseModel):
    number: str


class Cancelled(BaseModel):
    number: str


class Refunded(BaseModel):
    number: str


class Foreign(BaseModel):
    __event_type__ = ("com.example.order.placed", "OrderPlaced.v1")
    number: str


class OfDict(TypedDict):
    number: str


BODY = b'{"number":"1"}'


def message(type: str | None, topic: str = "orders") -> Message:
    return Message(id="1", topic=topic, body=BODY, type=type)


def test_a_union_takes_the_types_it_knows_and_no_other() -> None:
    assert isinstance(decode_payload(message("Cancelled"), Placed | Cancelled), Cancelled)
    with pytest.raises(Reject, match="unknown type 'Refunded': the handler takes Placed, Canc"):
        decode_payload(message("Refunded"), Placed | Cancelled)


@pytest.mark.parametrize(
    ("type", "topic"), [(None, "orders"), ("orders", "orders"), ("orders", "orders.g.dlq")]
)
def test_a_message_without_a_type_gets_the_type_it_validates_as(
    type: str | None, topic: str
) -> None:
    assert isinstance(decode_payload(message(type, topic), Placed | Cancelled), Placed)


def test_a_union_with_plain_data_takes_any_type() -> None:
    assert decode_payload(message("Refunded"), Placed | dict) == Placed(number="1")


def test_one_class_takes_any_type_that_validates() -> None:
    assert decode_payload(message("com.example.order.placed"), Placed) == Placed(number="1")


def test_a_class_may_name_its_types() -> None:
    assert type_name(Foreign(number="1"), "orders") == "com.example.order.placed"
    for kind in ("com.example.order.placed", "OrderPlaced.v1", "Foreign"):
        assert isinstance(decode_payload(message(kind), Cancelled | Foreign), Foreign)


@pytest.mark.parametrize("unknown", ["reject", "ignore"])
async def test_an_unknown_type_is_rejected_or_ignored(
    unknown: Literal["reject", "ignore"],
) -> None:
    app = App()
    got: list[str] = []

    @app.subscriber("orders", group="view", unknown=unknown)
    async def view(event: Placed | Cancelled) -> None:
        got.append(type(event).__name__)

    async with TestBroker(app) as broker:
        for event in (Placed(number="1"), Refunded(number="1"), Cancelled(number="1")):
            await broker.publish("orders", event)
        await broker.drain()
        letters = await app.broker.admin.dead_letters("orders", "view").list()
    assert got == ["Placed", "Cancelled"]
    assert len(letters) == (1 if unknown == "reject" else 0)


async def test_handlers_of_one_group_share_its_messages_by_type() -> None:
    app = App()
    got: list[Any] = []

    @app.subscriber("orders", group="view")
    async def placed(event: Placed, delivery: Delivery) -> None:
        got.append(event)

    @app.subscriber("orders", group="view")
    async def others(event: Cancelled | Foreign) -> None:
        got.append(event)

    sent = [Placed(number="1"), Cancelled(number="1"), Foreign(number="1"), Refunded(number="1")]
    async with TestBroker(app) as broker:
        for event in sent:
            await broker.publish("orders", event)
        await broker.drain()
        (letter,) = await app.broker.admin.dead_letters("orders", "view").list()
        assert len(app.subscriptions) == 1
    assert got == sent[:3]
    assert "unknown type 'Refunded'" in str(letter.reason)


def test_handlers_of_one_group_with_one_type_are_refused_at_once() -> None:
    async def placed(event: Placed) -> None: ...

    async def again(event: Refunded | Placed) -> None: ...

    async def any_data(event: dict) -> None: ...  # type: ignore[type-arg]

    async def typed_dict(event: OfDict) -> None: ...

    for second in (again, any_data, typed_dict):
        app = App()
        app.subscriber("orders", group="view")(placed)
        with pytest.raises(ConfigurationError, match="same type") as caught:
            app.subscriber("orders", group="view")(second)
        assert second.__qualname__ in str(caught.value)
        app.subscriber("orders", group="other")(second)
        app.subscriber("orders", group=None)(second)


def test_handlers_of_one_group_must_have_equal_options() -> None:
    async def placed(event: Placed) -> None: ...

    async def cancelled(event: Cancelled) -> None: ...

    app = App()
    app.subscriber("orders", group="view")(placed)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"concurrency": 2}, "differ in concurrency"),
        ({"retry": None}, "differ in retry"),
        ({"retry": anymq.Retry(attempts=2), "deadline": None}, "differ in retry, deadline"),
        ({"idempotency": anymq.Idempotency("memory://"), "prefetch": 1}, "prefetch, idempotency"),
        ({"middleware": [lambda handler: handler]}, "differ in middleware"),
    ]
    for settings, reason in wrong:
        with pytest.raises(ConfigurationError, match=rf"equal options.* {reason}$"):
            app.subscriber("orders", group="view", **settings)(cancelled)


def test_handlers_of_one_group_have_no_batch() -> None:
    async def placed(events: list[Placed]) -> None: ...

    async def cancelled(events: list[Cancelled]) -> None: ...

    app = App()
    app.subscriber("orders", group="view", batch=anymq.Batch())(placed)
    with pytest.raises(ConfigurationError, match="batch"):
        app.subscriber("orders", group="view", batch=anymq.Batch())(cancelled)


def test_unknown_accepts_reject_and_ignore_only() -> None:
    async def handle(event: Placed) -> None: ...

    with pytest.raises(ConfigurationError, match="unknown"):
        adapt(handle, anymq.Topic("t"), unknown="drop")  # type: ignore[arg-type]


class Aliased(BaseModel):
    number: str = Field(alias="orderNumber")
    read_only: str = Field(default="", validation_alias="readOnly")


@dataclass
class Holds:
    value: object


class Limits(BaseModel):
    limit: float | None = None


class Login(BaseModel):
    password: SecretStr


def test_aliases_survive_encoding_and_decoding() -> None:
    sent = Aliased.model_validate({"orderNumber": "1", "readOnly": "x"})
    body, _ = encode_payload(sent)
    assert b'"orderNumber":"1"' in body
    assert decode_payload(Message(id="1", topic="t", body=body), Aliased) == sent
    by_name = Message(id="1", topic="t", body=b'{"number":"1","read_only":"x"}')
    assert decode_payload(by_name, Aliased) == sent, "as it was published before"


@pytest.mark.parametrize(
    "payload",
    [
        Limits(limit=float("nan")),
        Limits(limit=float("inf")),
        {"a": [float("nan")]},
        Holds({"b": float("-inf")}),
        [Limits(limit=float("nan"))],
        Login(password=SecretStr("s")),
        {"login": Login(password=SecretStr("s"))},
        Holds(SecretStr("s")),
    ],
)
def test_keys_that_json_would_change_are_refused(payload: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be published"):
        encode_payload(payload)


def test_null_and_asterisks_are_accepted() -> None:
    for payload in (Limits(), {"a": None, "b": "*******"}, [None], Holds("NaN")):
        encode_payload(payload)
