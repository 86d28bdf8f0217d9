"""The AsyncAPI document, against the official JSON schema of AsyncAPI 3.0.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel

import anymq
from anymq import URL, Topic
from anymq.description import asyncapi, service
from anymq.description.servers import PROTOCOLS
from anymq.driver.registry import ADAPTERS, load_driver
from tests.description.shop import shop

SCHEMA = Path(__file__).parent / "data" / "asyncapi-3.0.0.json"
URLS = {
    "kafka://u:hidden@h1:9092,h2?sasl_mechanism=SCRAM-SHA-256": "kafka",
    "kafka+ssl://h1?cert=c.pem": "kafka-secure",
    "amqp://u:hidden@rabbit/shop": "amqp",
    "amqps://rabbit": "amqps",
    "nats://hidden@n1:4222": "nats",
    "tls://n1": "nats",
    "redis://:hidden@[::1]:6379/2": "redis",
    "rediss://r": "redis",
    "sqlite:///shop.db": "sqlite",
    "memory://": "memory",
    "carrier://pigeon?token=hidden": "carrier",
}


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def problems(document: Any) -> list[str]:
    return [
        f"{list(each.path)}: {each.message[:200]}" for each in validator().iter_errors(document)
    ]


def described(url: str | None = None, app: anymq.App | None = None) -> Any:
    one = service(app or shop(), name="unused", url=URL.parse(url) if url else None)
    return json.loads(json.dumps(asyncapi([one])))


@pytest.mark.parametrize("url", [*URLS, None])
def test_the_document_is_valid(url: str | None) -> None:
    assert problems(described(url)) == []


def test_the_schema_finds_mistakes() -> None:
    document = described("memory://")
    operation = next(iter(document["operations"]))
    changes: list[Callable[[Any], Any]] = [
        lambda d: d["operations"][operation].update(action="consume"),
        lambda d: d["operations"][operation].pop("channel"),
        lambda d: d["info"].pop("version"),
        lambda d: next(iter(d["servers"].values())).update(port=1),
        lambda d: d["channels"]["orders"].update(publish={}),
        lambda d: d["components"]["schemas"]["OrderPlaced"].update(type="record"),
    ]
    for change in changes:
        wrong = deepcopy(document)
        change(wrong)
        assert len(problems(wrong)) == 1


@pytest.mark.parametrize("url", URLS)
def test_every_reference_leads_somewhere(url: str) -> None:
    document = described(url)
    found = 0

    def visit(node: Any) -> None:
        nonlocal found
        if isinstance(node, list):
            for each in node:
                visit(each)
        elif isinstance(node, dict):
            if "$ref" in node:
                found += 1
                at: Any = document
                for step in node["$ref"].removeprefix("#/").split("/"):
                    at = at[step]
            for each in node.values():
                visit(each)

    visit(document)
    assert found > 20


@pytest.mark.parametrize(("url", "protocol"), URLS.items())
def test_a_server_has_the_protocol_and_no_secret(url: str, protocol: str) -> None:
    document = described(url)
    assert {each["protocol"] for each in document["servers"].values()} == {protocol}
    assert "hidden" not in json.dumps(document)


def test_the_parts_of_a_server() -> None:
    def servers(url: str) -> Any:
        return described(url)["servers"]

    kafka = servers("kafka://u:p@h1:9092,h2?sasl_mechanism=SCRAM-SHA-256")
    assert [each["host"] for each in kafka.values()] == ["h1:9092", "h2"]
    assert kafka["kafka"]["security"] == [{"type": "scramSha256"}]
    assert servers("amqp://u:p@rabbit/shop")["amqp"] == {
        "host": "rabbit",
        "protocol": "amqp",
        "pathname": "/shop",
        "security": [{"type": "userPassword"}],
    }
    assert servers("redis://[::1]:6379/2")["redis"]["host"] == "[::1]:6379"
    assert servers("nats://token@n1")["nats"]["security"] == [{"type": "apiKey", "in": "user"}]
    assert servers("kafka+ssl://h?cert=c")["kafka-secure"]["security"] == [{"type": "X509"}]
    assert "servers" not in described(None)


@pytest.mark.parametrize("scheme", sorted(entry_points(group=ADAPTERS).names))
def test_headers_are_named_as_the_adapter_names_them(scheme: str) -> None:
    binding = load_driver(scheme).binding
    protocol = PROTOCOLS[scheme]
    assert (protocol.prefix, protocol.native_key) == (binding.prefix, binding.native_key)


def test_what_a_handler_says() -> None:
    document = described("kafka://h")
    billing = document["operations"]["shop.receive.orders.billing"]
    assert billing["action"] == "receive"
    assert billing["channel"] == {"$ref": "#/channels/orders"}
    assert [each["$ref"].rpartition("/")[2] for each in billing["messages"]] == [
        "OrderPlaced",
        "OrderCancelled",
    ]
    assert billing["title"] == "bill, refund"
    assert billing["description"] == "Bill an order.\n\nRefund an order."
    assert billing["bindings"]["kafka"]["groupId"]["enum"] == ["orders.billing"]
    assert billing["x-anymq"] == {
        "service": "shop",
        "group": "billing",
        "handlers": ["bill", "refund"],
        "ordered": True,
        "deadLetters": "orders.billing.dlq",
    }
    assert document["operations"]["shop.receive.notes.notes"]["x-anymq"]["batch"] == 10
    assert document["operations"]["shop.send.payments.captured"]["action"] == "send"
    assert document["channels"]["orders"]["bindings"]["kafka"]["partitions"] == 8
    assert document["info"]["title"] == "shop"
    assert document["info"]["version"] == "1.4"


def test_what_a_message_says() -> None:
    channels = described("amqp://h/v")["channels"]
    cancelled = channels["orders"]["messages"]["OrderCancelled"]
    assert cancelled["name"] == "shop/order.cancelled"
    assert cancelled["payload"] == {"$ref": "#/components/schemas/OrderCancelled"}
    assert cancelled["headers"]["properties"] == {
        "cloudEvents:type": {"type": "string", "enum": ["shop/order.cancelled", "OrderCancelled"]}
    }
    assert channels["orders"]["bindings"]["amqp"]["exchange"]["vhost"] == "v"
    assert channels["images"]["messages"]["images"]["contentType"] == "application/octet-stream"
    assert channels["texts"]["messages"]["texts"]["contentType"] == "text/plain; charset=utf-8"
    assert channels["audit"]["messages"]["audit"]["payload"] == {}


class Invoice(BaseModel):
    number: int


def test_what_a_handler_returns() -> None:
    app, router = anymq.App(name="parts"), anymq.Router(prefix="shop.")

    @router.subscriber("orders", group="billing", to="invoices")
    async def bill(order: dict[str, int]) -> Invoice | None: ...

    @router.subscriber("orders", group="rating", to=Topic("ratings", float), reply=True)
    async def rate(order: dict[str, int]) -> Any: ...

    app.include(router)
    document = described("nats://n", app)
    assert problems(document) == []
    operations, channels = document["operations"], document["channels"]
    invoices = operations["parts.send.shop.invoices"]
    assert invoices["x-anymq"] == {"service": "parts", "handler": "bill"}
    assert invoices["messages"] == [{"$ref": "#/channels/shop.invoices/messages/Invoice"}]
    (message,) = channels["shop.ratings"]["messages"].values()
    assert message["payload"] == {"type": "number"}
    assert operations["parts.receive.shop.orders.rating"]["x-anymq"]["answersRequests"] is True
    assert "answersRequests" not in operations["parts.receive.shop.orders.billing"]["x-anymq"]


def test_dead_letters_are_channels_of_their_own() -> None:
    document = described("memory://")
    letters = document["channels"]["orders.billing.dlq"]
    assert letters["description"] == "Dead letters of orders (group billing)."
    assert letters["messages"] == {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}}
    mend = document["operations"]["shop.receive.orders.billing.dlq.mend"]
    assert mend["messages"] == [{"$ref": "#/channels/orders.billing.dlq/messages/DeadLetter"}]
    assert "images.broadcast.dlq" not in document["channels"]


def test_a_tuple_and_a_reference_with_a_default_are_written_for_draft_07() -> None:
    class Inner(BaseModel):
        x: int = 0

    class Outer(BaseModel):
        pair: tuple[int, str]
        inner: Inner = Inner()

    app = anymq.App("memory://", publishes=[Topic("outer", Outer)])
    document = described("memory://", app)
    outer = document["components"]["schemas"]["Outer"]["properties"]
    assert [each["type"] for each in outer["pair"]["items"]] == ["integer", "string"]
    assert outer["inner"]["allOf"] == [{"$ref": "#/components/schemas/Inner"}]
    assert problems(document) == []


def test_classes_of_one_name_stay_apart() -> None:
    def named(kind: type) -> type[BaseModel]:
        return type("Same", (BaseModel,), {"__annotations__": {"x": kind}, "__module__": __name__})

    one, other = named(int), named(str)
    topics = [Topic("a", one), Topic("b", other)]
    document = described("memory://", anymq.App("memory://", publishes=topics))
    schemas = document["components"]["schemas"]
    payloads = [document["channels"][each]["messages"]["Same"]["payload"] for each in "ab"]
    kinds = [
        schemas[each["$ref"].rpartition("/")[2]]["properties"]["x"]["type"] for each in payloads
    ]
    assert kinds == ["integer", "string"]
    assert problems(document) == []


def test_what_has_no_schema_is_any_value() -> None:
    class Odd:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
            from pydantic_core import core_schema

            return core_schema.no_info_plain_validator_function(lambda value: value)

    class Holder(BaseModel):
        odd: Odd = Odd()

        model_config = {"arbitrary_types_allowed": True}

    document = described("memory://", anymq.App("memory://", publishes=[Topic("holder", Holder)]))
    odd = document["components"]["schemas"]["Holder"]["properties"]["odd"]
    assert odd["$comment"].startswith("no JSON schema: ")
    assert problems(document) == []


def test_names_on_the_broker_are_addresses() -> None:
    names = {"orders": "legacy-orders", "orders.billing": "legacy-group"}
    app = anymq.App("kafka://h", names=names)

    @app.subscriber("orders", group="billing")
    async def bill(order: dict[str, int]) -> None: ...

    document = described("kafka://h", app)
    assert document["channels"]["orders"]["address"] == "legacy-orders"
    bindings = document["operations"]["unused.receive.orders.billing"]["bindings"]
    assert bindings["kafka"]["groupId"]["enum"] == ["legacy-group"]


def test_several_services_share_channels_and_servers() -> None:
    services = []
    for number, url in enumerate(("kafka://a", "kafka://a", "nats://b")):
        app = anymq.App(url, name=f"s{number}", version=str(number))

        @app.subscriber("orders", group=f"g{number}")
        async def handle(order: dict[str, int]) -> None: ...

        services.append(service(app, name="unused", url=app.url))
    document = asyncapi(services)
    assert problems(document) == []
    assert list(document["servers"]) == ["kafka", "nats"]
    assert [key for key in document["operations"] if ".receive." in key] == [
        f"s{number}.receive.orders.g{number}" for number in range(3)
    ]
    assert document["info"]["title"] == "s0, s1, s2"
    assert document["info"]["version"] == "0, 1, 2"


def test_an_app_with_nothing_is_a_document_too() -> None:
    document = described(None, anymq.App())
    assert problems(document) == []
    assert document["info"]["version"] == "0.0.0"


def test_the_same_app_gives_the_same_text() -> None:
    assert json.dumps(described("kafka://h")) == json.dumps(described("kafka://h", shop()))
