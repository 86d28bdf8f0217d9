"""The official CloudEvents SDK for Python on the same brokers, reading and writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from cloudevents.core.bindings import amqp, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel

from anymq import Message, connect
from anymq.testing.harness import random_name
from anymq.testing.tools import take_acked
from tests.foreign.raw import STORED, Foreign
from tests.foreign.raw_rabbitmq import RawRabbitMQ
from tests.foreign.support import raw


class Order(BaseModel):
    number: int


def event() -> CloudEvent:
    return CloudEvent(
        {
            "id": "sdk ü%",
            "source": "/sdk",
            "type": "Order",
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "subject": "s 1",
            "partitionkey": "pk",
        },
        {"number": 7},
    )


def check(message: Message) -> None:
    """Assert that `message` equals `event`."""
    assert (message.id, message.source, message.type) == ("sdk ü%", "/sdk", "Order")
    assert (message.key, message.content_type) == ("pk", "application/json")
    assert message.body in (b'{"number":7}', b'{"number": 7}')
    assert message.headers["ce-subject"] == "s 1"


async def received(backend: str, message: Foreign) -> Message:
    topic = random_name()
    async with raw(backend) as publisher, connect(publisher.url) as broker:
        await broker.admin.declare(topic)
        async with broker.subscribe(topic, group="g") as deliveries:
            assert await publisher.publish(topic, [message]) == [STORED]
            (delivery,) = await take_acked(deliveries, 1)
            return delivery.message


@pytest.mark.kafka
@pytest.mark.parametrize("mode", [kafka.to_binary_event, kafka.to_structured_event])
async def test_kafka_reads_events_of_the_sdk(mode: Callable[..., kafka.KafkaMessage]) -> None:
    made = mode(event(), JSONFormat())
    key = made.key.encode() if isinstance(made.key, str) else made.key
    headers = list(made.headers.items())
    check(await received("kafka", Foreign(body=made.value, key=key, headers=headers)))


@pytest.mark.kafka
async def test_kafka_writes_events_for_the_sdk() -> None:
    topic = random_name()
    url = raw("kafka").url
    async with connect(url, source="/shop") as broker:
        await broker.publish(topic, Order(number=7), id="id ü%", key="k", headers={"tenant": "t"})
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=urlsplit(url).netloc, auto_offset_reset="earliest"
    )
    await consumer.start()
    async with asyncio.timeout(120):
        record = await consumer.getone()
    await consumer.stop()
    sent = kafka.KafkaMessage(
        headers=dict(record.headers), key=record.key, value=record.value or b""
    )
    found = kafka.from_kafka_event(sent, JSONFormat())
    assert (found.get_id(), found.get_source(), found.get_type()) == ("id ü%", "/shop", "Order")
    assert found.get_data() == {"number": 7}


@pytest.mark.rabbitmq
@pytest.mark.parametrize("mode", [amqp.to_binary_event, amqp.to_structured_event])
async def test_rabbitmq_reads_events_of_the_sdk(mode: Callable[..., amqp.AMQPMessage]) -> None:
    made = mode(event(), JSONFormat())
    properties = {"content_type": made.properties["content-type"]}
    headers = list(made.application_properties.items())
    message = Foreign(body=made.application_data, headers=headers, properties=properties)
    check(await received("rabbitmq", message))


@pytest.mark.rabbitmq
async def test_rabbitmq_writes_events_for_the_sdk() -> None:
    topic = random_name()
    async with raw("rabbitmq") as reader, connect(reader.url, source="/shop") as broker:
        assert isinstance(reader, RawRabbitMQ)
        await broker.admin.declare(topic)
        queue = (await reader.channel.queue_declare(exclusive=True)).queue or ""
        await reader.channel.queue_bind(queue, topic, "#")
        order = Order(number=7)
        await broker.publish(topic, order, id="id ü%", key="k", headers={"tenant": "t"})
        got = await reader.channel.basic_get(queue)
        properties = got.header.properties
        sent = amqp.AMQPMessage(
            properties={"content-type": properties.content_type},
            application_properties=dict(properties.headers or {}),
            application_data=got.body,
        )
    found = amqp.from_amqp_event(sent, JSONFormat())
    assert (found.get_id(), found.get_source(), found.get_type()) == ("id ü%", "/shop", "Order")
    assert found.get_attributes()["partitionkey"] == "k"
    assert found.get_data() == {"number": 7}


@pytest.mark.rabbitmq
async def test_rabbitmq_reads_attributes_in_their_former_spelling() -> None:
    headers = {"ce-id": "1", "ce-source": "/old", "ce-type": "Order", "ce-subject": "s", "x": "y"}
    message = await received("rabbitmq", Foreign(body=b"{}", headers=list(headers.items())))
    assert (message.id, message.source, message.type) == ("1", "/old", "Order")
    assert dict(message.headers) == {"ce-subject": "s", "x": "y"}
