"""Round trips: messages arrive as they were published."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...errors import Closed
from ...message import Receipt
from ..tools import WAIT_SECONDS, bodies, take_acked, until
from .base import Base


class Order(BaseModel):
    number: int
    customer: str


@dataclass
class Line:
    sku: str
    count: int


ODD_HEADERS = {
    "plain": "value",
    "empty": "",
    "Mixed-Case": "kept",
    "unicode": "Grüße, 世界 \N{SNOWMAN}",
    "quotes": 'it\'s "quoted", 100 % & <more>;=\\',
    "long": "x" * 4000,
    "spaces": "  inside  and around  ",
}


class RoundTrip(Base):
    """Bodies, headers, attributes, `publish_many`, and messages of other clients."""

    async def test_bodies_arrive_unchanged(self, broker: Broker, topic: str) -> None:
        sent = [b"", b"\x00\xff\x00 not text \x80", os.urandom(1_000_000), b"x"]
        async with broker.subscribe(topic, group="g") as deliveries:
            for body in sent:
                await broker.publish(topic, body)
            received = await take_acked(deliveries, len(sent))
        assert sorted(d.message.body for d in received) == sorted(sent)

    async def test_headers_and_attributes_arrive_unchanged(
        self, broker: Broker, topic: str
    ) -> None:
        headers = dict(ODD_HEADERS)
        receipt = await broker.publish(
            topic, {"n": 1}, key="ключ 1", headers=headers, id="an id", type="Thing Happened"
        )
        assert receipt == Receipt("an id", topic, receipt.position)
        assert headers == ODD_HEADERS
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take_acked(deliveries, 1)
        message = delivery.message
        assert dict(message.headers) == ODD_HEADERS
        assert (message.id, message.topic, message.key) == ("an id", topic, "ключ 1")
        assert (message.type, message.source) == ("Thing Happened", "anymq")
        assert message.content_type == "application/json"
        assert message.body == b'{"n":1}'
        assert message.time is not None
        assert abs(datetime.now(UTC) - message.time) < timedelta(minutes=1)
        assert (delivery.attempt, delivery.group, delivery.topic) == (1, "g", topic)
        assert message.correlation_id is message.causation_id is None

    async def test_stated_attributes_arrive_unchanged(self, broker: Broker, topic: str) -> None:
        order, cause, xml = "an order, 17", "ключ", "application/xml"
        await broker.publish(
            topic, b"<a/>", content_type=xml, correlation_id=order, causation_id=cause
        )
        answers = await broker.publish_many(
            topic,
            [b"<b/>", b"<c/>"],
            content_type=xml,
            correlation_id=order,
            causation_id=cause,
        )
        assert all(isinstance(answer, Receipt) for answer in answers)
        await broker.publish(topic, {"n": 1}, correlation_id=order)
        async with broker.subscribe(topic, group="g") as deliveries:
            messages = [delivery.message for delivery in await take_acked(deliveries, 4)]
        assert {message.correlation_id for message in messages} == {order}
        assert [(m.content_type, m.causation_id) for m in messages if m.body.startswith(b"<")] == [
            (xml, cause)
        ] * 3
        (plain,) = [m for m in messages if not m.body.startswith(b"<")]
        assert (plain.content_type, plain.causation_id) == ("application/json", None)

    async def test_payloads_reach_typed_handlers(self, broker: Broker, topic: str) -> None:
        got: list[Order | Line] = []

        async def handle(event: Order | Line) -> None:
            got.append(event)

        async with broker.subscribe(topic, group="g", handler=handle):
            await broker.publish(topic, Order(number=1, customer="ö"))
            await broker.publish(topic, Line("sku", 2))
            await until(lambda: len(got) == 2)
        assert sorted(got, key=repr) == [Line("sku", 2), Order(number=1, customer="ö")]

    async def test_messages_published_in_a_handler_name_their_cause(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "first", id="root")

        async def second(delivery: Delivery) -> None:
            await broker.publish(f"{topic}.b", "second", id="child")

        async def third(delivery: Delivery) -> None:
            await broker.publish(f"{topic}.c", "third")

        async with (
            broker.subscribe(topic, group="g", handler=second),
            broker.subscribe(f"{topic}.b", group="g", handler=third),
            broker.subscribe(f"{topic}.c", group="g") as deliveries,
        ):
            (delivery,) = await take_acked(deliveries, 1)
        assert delivery.message.correlation_id == "root"
        assert delivery.message.causation_id == "child"

    async def test_many_publishers_and_consumers_lose_nothing(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        publishers, each = 8, 50
        got: Counter[str] = Counter()

        async def handle(body: str) -> None:
            got[body] += 1

        async def publish(name: int) -> None:
            for number in range(each):
                await broker.publish(topic, f"{name}.{number}", key=str(number % 5), timeout=30)

        async with (
            connect(url) as other,
            broker.subscribe(topic, group="g", handler=handle, concurrency=4),
            broker.subscribe(topic, group="g", handler=handle),
            other.subscribe(topic, group="g", handler=handle, concurrency=2),
        ):
            await asyncio.gather(*(publish(name) for name in range(publishers)))
            await until(lambda: len(got) == publishers * each)
        expected = {f"{name}.{number}" for name in range(publishers) for number in range(each)}
        assert set(got) == expected
        assert sum(got.values()) - len(got) == 0, "duplicates without a fault"

    async def test_publish_many_returns_an_outcome_for_each_message(
        self, broker: Broker, topic: str
    ) -> None:
        receipts = await broker.publish_many(
            topic, [f"{n}" for n in range(300)], key="k", id=lambda body: f"{topic}-{body}"
        )
        assert all(isinstance(receipt, Receipt) for receipt in receipts)
        ids = [receipt.id for receipt in receipts if isinstance(receipt, Receipt)]
        assert ids == [f"{topic}-{n}" for n in range(300)]
        async with broker.subscribe(topic, group="g") as deliveries:
            received = await take_acked(deliveries, 300)
        assert bodies(received) == [f"{n}" for n in range(300)], "one key keeps its order"

    async def test_publish_many_after_close_raises(self, url: str, topic: str) -> None:
        async with connect(url) as broker:
            await broker.publish(topic, "x")
        try:
            await broker.publish_many(topic, ["y"])
        except Closed:
            return
        raise AssertionError("published on a closed broker")

    async def test_foreign_messages_are_delivered(self, broker: Broker, topic: str) -> None:
        foreign = {b"\xfe plain bytes of another client", b"and others"}
        for body in foreign:
            await self.harness.publish_foreign(broker, topic, body)
        attempts: dict[str, list[int]] = {}
        async with broker.subscribe(topic, group="g") as deliveries:
            async with asyncio.timeout(WAIT_SECONDS):
                async for delivery in deliveries:
                    if delivery.message.body not in foreign:
                        await delivery.ack()
                        continue
                    attempts.setdefault(delivery.message.id, []).append(delivery.attempt)
                    if delivery.attempt == 1:
                        await delivery.nack()
                        continue
                    await delivery.ack()
                    if sum(map(len, attempts.values())) == 4:
                        break
        assert list(attempts.values()) == [[1, 2], [1, 2]], (
            "each has one identity over both attempts"
        )
