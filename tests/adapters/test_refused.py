"""Messages of other publishers of which the server takes no copy: they end as reduced letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiormq
import pytest
import redis.asyncio
from nats.aio.client import Client

from anymq import Broker, Delivery, Letter, MessageTooLarge, connect
from anymq.middleware import Acknowledge, DeadLetter, Retry
from anymq.testing.harness import random_name
from anymq.testing.tools import eventually, until
from brokers import server

CHAIN = (Acknowledge(), DeadLetter(), Retry(attempts=2, initial=0.3, in_place=0, jitter=False))


async def letter_of(
    broker: Broker, publish: Callable[[str], Awaitable[object]], *, ordered: bool = False
) -> Letter:
    """Return the letter of what `publish` has put into a topic; the group has gone on."""
    topic = random_name()
    attempts: list[int] = []
    good: list[str] = []

    async def handle(body: str, delivery: Delivery) -> None:
        if body == "good":
            good.append(body)
            return
        attempts.append(delivery.attempt)
        raise RuntimeError("no good")

    await broker.admin.declare(topic)
    async with broker.subscribe(
        topic, group="g", handler=handle, middleware=CHAIN, ordered=ordered, ack_deadline=30
    ) as subscription:
        await publish(topic)
        await broker.publish(topic, "good")
        letters = await eventually(broker.admin.dead_letters(topic, "g").list, bool, within=60)
        await until(lambda: good == ["good"] and subscription.in_flight == 0)
    assert set(attempts) == {1, 2}
    letter: Letter = letters[0]
    assert "RuntimeError: no good" in (letter.reason or "")
    assert letter.attempts == 2
    return letter


@pytest.mark.nats
@pytest.mark.parametrize("ordered", [False, True])
async def test_nats_a_line_break_in_a_header(*, ordered: bool) -> None:
    url = server("nats").url
    client = Client()
    await client.connect(url)

    async def publish(topic: str) -> None:
        # nats-py would clean the value.
        reply = await client.jetstream().stream_info(topic)
        head = b"NATS/1.0\r\nx: a\nb\r\ntenant: t\r\n\r\n"
        body = b"foreign"
        subject = (reply.config.subjects or [""])[0].removesuffix(".>")
        command = f"HPUB {subject} {len(head)} "
        command += f"{len(head) + len(body)}\r\n"
        client._pending.append(command.encode() + head + body + b"\r\n")
        client._pending_data_size += 1
        await client._flush_pending(force_flush=True)
        await client.flush()

    async with connect(url) as broker:
        letter = await letter_of(broker, publish, ordered=ordered)
    await client.close()
    assert letter.reduced == ("headers",)
    assert letter.message.body == b"foreign"
    assert letter.message.headers["tenant"] == "t"


@pytest.mark.nats
async def test_nats_a_body_that_only_just_fits() -> None:
    url = server("nats").url
    client = Client()
    await client.connect(url)
    size = client.max_payload - 10

    async def publish(topic: str) -> None:
        await client.jetstream().publish(topic, b"x" * size, timeout=30)

    async with connect(url) as broker:
        letter = await letter_of(broker, publish)
        assert letter.reduced == ("body",)
        assert letter.message.headers["anymq-dlq-body-size"] == str(size)
        limit = int(min(client.max_payload, broker._sender.max_body))
        if limit == client.max_payload:
            with pytest.raises(MessageTooLarge, match="left free"):
                await broker.publish(letter.topic, b"x" * (limit - 2000))
    await client.close()


@pytest.mark.rabbitmq
async def test_rabbitmq_headers_that_nearly_fill_a_frame() -> None:
    url = server("rabbitmq").url
    connection = await aiormq.connect(url)
    channel = await connection.channel()

    async def publish(topic: str) -> None:
        properties = aiormq.spec.Basic.Properties(
            message_id="m", headers={"big": "h" * 130_700, "tenant": "t"}
        )
        await channel.basic_publish(b"foreign", exchange=topic, properties=properties)

    async with connect(url) as broker:
        letter = await letter_of(broker, publish)
    await connection.close()
    assert letter.reduced == ("headers",)
    assert letter.message.body == b"foreign"
    assert letter.message.headers["tenant"] == "t"
    assert "big" not in letter.message.headers


@pytest.mark.redis
@pytest.mark.parametrize("ordered", [False, True])
async def test_redis_more_fields_than_a_script_can_hand_over(*, ordered: bool) -> None:
    url = server("redis").url
    client = redis.asyncio.Redis.from_url(url)

    async def publish(topic: str) -> None:
        fields: dict[Any, Any] = {"tenant": "t"}
        fields |= {f"f{number}": "v" for number in range(4100)}
        await client.xadd(topic, {**fields, "data": "foreign"})

    async with connect(url) as broker:
        letter = await letter_of(broker, publish, ordered=ordered)
    await client.aclose()
    assert letter.reduced == ("headers",)
    assert letter.message.body == b"foreign"
    assert letter.message.headers["tenant"] == "t"
