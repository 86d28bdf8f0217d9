"""Programs in Node on the same brokers, with the official CloudEvents SDK."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from anymq import connect
from anymq.testing.harness import random_name
from anymq.testing.tools import take_acked
from brokers import server
from tests.foreign.node import Node
from tests.foreign.support import EVERY


class Order(BaseModel):
    number: int


async def run(backend: str, action: str, url: str, name: str) -> None:
    async with Node(backend, action, url, name) as node:
        await node.end()


@pytest.mark.parametrize("backend", EVERY)
async def test_messages_of_node_are_read(backend: str) -> None:
    url, topic = server(backend).url, random_name()
    async with connect(url) as broker:
        await broker.admin.declare(topic)
        async with broker.subscribe(topic, group="g") as deliveries:
            await run(backend, "publish", url, topic)
            found = [item.message for item in await take_acked(deliveries, 3)]
    events = {message.id: message for message in found if message.type}
    assert sorted(events) == ["binary", "structured"]
    for message in events.values():
        assert (message.source, message.type) == ("/node", "Order")
        assert (message.body, message.content_type) == (b'{"number":7}', "application/json")
        assert message.time is not None
        assert dict(message.headers) == {"ce-subject": "ünï", "ce-tenant": "t 1"}
    (plain,) = (message for message in found if not message.type)
    assert plain.body == ('{"a": "1", "b": "ü"}'.encode() if backend == "redis" else b"plain")


@pytest.mark.parametrize("backend", EVERY)
async def test_messages_of_anymq_are_events_for_the_sdk_of_node(backend: str) -> None:
    url, topic = server(backend).url, random_name()
    async with connect(url, source="/shop") as broker:
        await broker.admin.declare(topic)
        async with Node(backend, "consume", url, topic, 2) as node:
            if backend in ("nats", "rabbitmq"):
                assert await node.line() == "ready"
            await broker.publish(topic, Order(number=7), id="id ü%", headers={"tenant": "t"})
            await broker.publish(topic, Order(number=8), key="k", id="second")
            events = sorted([await node.line(), await node.line()], key=lambda item: item["id"])
            await node.end()
    first, second = events
    assert (first["id"], second["id"]) == ("id ü%", "second")
    for event, number in ((first, 7), (second, 8)):
        assert event["valid"]
        assert (event["source"], event["type"]) == ("/shop", "Order")
        assert (event["data"], event["datacontenttype"]) == ({"number": number}, "application/json")
    assert second.get("partitionkey") == "k"


@pytest.mark.rabbitmq
async def test_the_tutorial_of_rabbitmq_works_with_anymq() -> None:
    """The queue of `sendToQueue("hello")` is consumed from, and published to."""
    url, queue = server("rabbitmq").url, random_name()
    await run("rabbitmq", "send", url, queue)
    async with connect(url, names={"hello": queue, "hello.workers": queue}) as broker:
        async with broker.subscribe("hello", group="workers") as deliveries:
            (delivery,) = await take_acked(deliveries, 1)
            assert delivery.message.body == b"Hello World!"
        async with Node("rabbitmq", "receive", url, queue) as node:
            assert await node.line() == "ready"
            await broker.publish("hello", "Hello Node!")
            assert await node.line() == "Hello Node!"
            await node.end()
