"""Other publishers and consumers on the same exchanges and queues."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime

import aio_pika
import pytest
from aiormq.abc import ChannelFrame
from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import SourceLost
from anymq.names import check_topic
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import codec, protocol
from anymq_rabbitmq.groups import schema
from anymq_rabbitmq.groups.group import Group
from tests.adapters.rabbitmq.support import Bench, attempt, bodies, cut, eventually, store, take


async def foreign(driver: RabbitMQDriver, name: str, *messages: aio_pika.Message) -> None:
    channel = await driver.native.channel()
    exchange = await channel.get_exchange(name)
    for message in messages:
        await exchange.publish(message, routing_key="anything")
    await channel.close()


@pytest.mark.rabbitmq
async def test_messages_of_others_are_received(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await foreign(
        driver,
        bench.name,
        aio_pika.Message(
            b"x",
            message_id="m-1",
            content_type="text/plain",
            timestamp=datetime(2026, 1, 2, tzinfo=UTC),
            headers={"number": 5, "list": [1, "a"], "flag": True, "cloudEvents:id": "e-1"},
        ),
    )
    (received,) = await take(source, 1)
    assert (received.body, received.position, received.content_type) == (b"x", "m-1", "text/plain")
    assert received.time == datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    assert (
        received.headers.items()
        >= {
            "number": "5",
            "list": '[1, "a"]',
            "flag": "true",
            "cloudEvents:id": "e-1",
        }.items()
    )


@pytest.mark.rabbitmq
async def test_messages_that_nothing_names_get_a_name_that_stays(bench: Bench) -> None:
    driver = await bench.open()
    source = await bench.join(driver)
    await foreign(driver, bench.name, *(aio_pika.Message(b"same") for _ in range(3)))
    first = await take(source, 3)
    assert bodies(first) == [b"same"] * 3
    assert len({one.position for one in first}) == 3
    assert {attempt(one) for one in first} == {1}
    cut(driver)
    again = await take(await bench.join(driver), 3)
    assert {one.position for one in again} == {one.position for one in first}
    assert {attempt(one) for one in again} == {2}


@pytest.mark.rabbitmq
async def test_a_new_group_names_them_too(bench: Bench, driver: RabbitMQDriver) -> None:
    await foreign(
        driver, bench.name, *(aio_pika.Message(b"same", headers={"n": i}) for i in range(3))
    )
    received = await take(await bench.join(driver), 3)
    assert [one.headers["n"] for one in received] == ["0", "1", "2"]
    assert len({one.position for one in received}) == 3


@pytest.mark.rabbitmq
async def test_what_the_client_library_cannot_decode_is_received(
    bench: Bench, driver: RabbitMQDriver
) -> None:
    group = await bench.join(driver)
    reader = await bench.join(driver, None, start="latest")
    channel = await driver.native.channel()
    assert driver.native.transport is not None
    connection = driver.native.transport.connection
    number = channel._channel.channel.number  # type: ignore[attr-defined]
    # A name that is not UTF-8, and a time in microseconds: the client breaks the connection.
    table = codec.table([(b"\xff\xfe", ord("S"), b"\x00\x00\x00\x01\xfd")])
    properties = codec.join(
        {
            codec.HEADERS: table,
            codec.MESSAGE_ID: b"\x02\xfa1",
            codec.TIMESTAMP: struct.pack(">Q", 1_790_000_000_000_000),
        }
    )
    data = codec.publish(number, bench.name, "k", properties, b"odd", frame_max=131072)
    await connection.write_queue.put(ChannelFrame(payload=data, should_close=False))
    for source in (group, reader):
        (received,) = await take(source, 1)
        assert received.body == b"odd"
        assert received.time == 1_790_000_000
        assert received.headers["\\xff\\xfe"] == "\\xfd"
    (received,) = await take(await bench.join(driver, "later"), 1)
    assert received.position == "\\xfa1"


@pytest.mark.rabbitmq
async def test_others_receive_cloudevents(bench: Bench, driver: RabbitMQDriver) -> None:
    channel = await driver.native.channel()
    exchange = await channel.get_exchange(bench.name)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, "key.*")
    record = bench.record(b"{}", key="key.1", content_type="application/json")
    await store(driver, [record])
    async with asyncio.timeout(60), queue.iterator() as messages:
        async for message in messages:
            assert message.body == b"{}"
            assert message.message_id == record.id == message.headers["cloudEvents:id"]
            assert message.content_type == "application/json"
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            assert message.timestamp is not None
            break


@pytest.mark.rabbitmq
async def test_a_deleted_queue_loses_the_source(bench: Bench, driver: RabbitMQDriver) -> None:
    source = await bench.join(driver)
    await protocol.delete_queue(driver._consuming, f"{bench.name}.billing")

    async def lost() -> bool:
        try:
            await source.receive(10, 1)
        except SourceLost as error:
            return "cancelled" in str(error)
        return False

    await eventually(lost)


SEGMENT = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
TOPIC = st.lists(SEGMENT | st.just("amq"), min_size=1, max_size=4).map(".".join)


@given(TOPIC, TOPIC, SEGMENT, SEGMENT)
def test_different_things_have_different_names(
    one: str, other: str, group: str, another: str
) -> None:
    def names(topic: str, member: str) -> dict[str, str]:
        check_topic(topic)
        exchange, queue = schema.escaped(topic), schema.escaped(f"{topic}.{member}")
        return {
            "exchange": exchange,
            "log": schema.log_of(exchange),
            "queue": queue,
            "fill": Group(exchange, queue).checkpoints,
            "seam": Group(exchange, queue).live_tap,
        }

    first, second = names(one, group), names(other, another)
    assert not any(name.startswith("amq.") for name in first.values())
    queues = [first[kind] for kind in ("log", "queue", "fill", "seam")]
    assert len(set(queues)) == 4
    if one != other:
        assert first["exchange"] != second["exchange"]
        assert first["log"] != second["log"]
    if (one, group) != (other, another):
        assert first["queue"] != second["queue"]
        assert first["queue"] not in (second["log"], second["fill"], second["seam"])
