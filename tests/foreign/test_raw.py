"""Messages of foreign publishers arrive unchanged."""

from __future__ import annotations

import pytest

from anymq import Message, connect
from anymq.testing.harness import random_name
from anymq.testing.tools import take_acked
from tests.foreign.raw import STORED, Foreign, attributes
from tests.foreign.support import EVERY, raw


@pytest.mark.parametrize("backend", EVERY)
async def test_a_plain_message_arrives_unchanged(backend: str) -> None:
    topic = random_name()
    async with raw(backend) as publisher, connect(publisher.url) as broker:
        await broker.admin.declare(topic)
        async with broker.subscribe(topic, group="g") as deliveries:
            sent = [Foreign(body=b"\x00\xff", key=b"k", headers=[("tenant", "ä".encode())])]
            assert await publisher.publish(topic, sent) == [STORED]
            (delivery,) = await take_acked(deliveries, 1)
    message: Message = delivery.message
    assert message.body == b"\x00\xff"
    assert message.id
    assert message.type is None
    if backend == "kafka":
        assert message.key == "k"


@pytest.mark.parametrize("backend", EVERY)
async def test_an_event_in_binary_mode_arrives_unchanged(backend: str) -> None:
    topic = random_name()
    async with raw(backend) as publisher, connect(publisher.url) as broker:
        await broker.admin.declare(topic)
        headers = attributes(publisher.prefix, id="7", source="/shop", type="T", specversion="1.0")
        async with broker.subscribe(topic, group="g") as deliveries:
            assert await publisher.publish(topic, [Foreign(headers=headers)]) == [STORED]
            (delivery,) = await take_acked(deliveries, 1)
    message = delivery.message
    assert (message.id, message.source, message.type) == ("7", "/shop", "T")
    assert dict(message.headers) == {}
