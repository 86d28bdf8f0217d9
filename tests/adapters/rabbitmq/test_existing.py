"""What exists already under the names of a topic or a group: used, refused, or bound again."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

import anymq
from anymq.testing.harness import random_name
from anymq.testing.tools import bodies, take_acked

pytestmark = pytest.mark.rabbitmq

KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "classic": ({}, True),
    "quorum": ({"x-queue-type": "quorum", "x-dead-letter-exchange": "dlx"}, True),
    "limited": ({"x-queue-type": "quorum", "x-delivery-limit": 5}, True),
    "stream": ({"x-queue-type": "stream"}, True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_queue_of_another_program_is_no_group(
    rabbitmq_url: str, kind: str, ordered: bool
) -> None:
    topic, (arguments, durable) = random_name(), KINDS[kind]
    async with await aio_pika.connect(rabbitmq_url) as client:
        channel = await client.channel()
        await channel.declare_queue(f"{topic}.g", durable=durable, arguments=arguments)
        async with anymq.connect(rabbitmq_url) as broker:
            await broker.publish(topic, b"confirmed before")
            with pytest.raises(anymq.ConfigurationError, match=rf"{topic}\.g.*not made by anymq"):
                await broker.subscribe(topic, group="g", ordered=ordered).__aenter__()
        await channel.queue_delete(f"{topic}.g")


@pytest.mark.parametrize("kind", ["classic", "limited"])
async def test_a_plain_queue_is_a_topic_and_its_group(
    rabbitmq_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, (arguments, _) = random_name("hello"), KINDS[kind]
    async with await aio_pika.connect(rabbitmq_url) as client:
        channel = await client.channel()
        plain = await channel.declare_queue(queue, durable=True, arguments=arguments)
        names = {"hello": queue, "hello.workers": queue}
        async with anymq.connect(rabbitmq_url, names=names) as broker:
            await channel.default_exchange.publish(aio_pika.Message(b"theirs"), queue)
            async with broker.subscribe("hello", group="workers") as deliveries:
                assert bodies(await take_acked(deliveries, 1)) == ["theirs"]
            await broker.publish("hello", b"ours", key="any")
            seen = await asyncio.wait_for(_next(plain), 30)
            assert seen.body == b"ours"
            with pytest.raises(anymq.UnsupportedOperation, match="is a queue"):
                await broker.publish("hello", b"later", delay=1)
        said = [one.getMessage() for one in caplog.records if "drops a message" in one.getMessage()]
        assert len(said) == (kind == "limited")
        await channel.queue_delete(queue)


async def _next(queue: aio_pika.abc.AbstractQueue) -> aio_pika.abc.AbstractIncomingMessage:
    while (message := await queue.get(fail=False)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await message.ack()
    return message


async def _delete(channel: AbstractChannel, exchange: str, *, remade: bool) -> None:
    await channel.exchange_delete(exchange)
    if remade:
        await channel.declare_exchange(exchange, "topic", durable=True)


@pytest.mark.parametrize(("ordered", "remade"), [(False, False), (False, True), (True, False)])
async def test_an_exchange_that_was_deleted_reaches_its_groups_again(
    rabbitmq_url: str, ordered: bool, remade: bool
) -> None:
    topic = anymq.Topic[bytes](random_name(), partitions=1 if remade else 3)
    async with (
        await aio_pika.connect(rabbitmq_url) as client,
        anymq.connect(rabbitmq_url) as broker,
        anymq.connect(rabbitmq_url) as other,
        broker.subscribe(topic, group="g", ordered=ordered) as deliveries,
    ):
        channel = await client.channel()
        await broker.publish(topic, b"before", key="k")
        assert bodies(await take_acked(deliveries, 1)) == ["before"]
        if remade:
            # A process that first uses a remade exchange cannot see that its bindings are gone.
            await other.publish(topic, b"other", key="k")
            assert bodies(await take_acked(deliveries, 1)) == ["other"]
        for publisher in (broker, other):
            await _delete(channel, topic.name, remade=remade)
            await publisher.publish(topic.name, b"after", key="k", timeout=30)
            assert bodies(await take_acked(deliveries, 1)) == ["after"]
