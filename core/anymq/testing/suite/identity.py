"""Message identity: source and id, for the broker, in receipts, and for `Idempotency`."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ...app import App
from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...message import Receipt
from ...middleware import Idempotency
from ..harness import random_name
from ..tools import bodies, silent, take_acked, until
from .base import Base

ODD_PAIRS = [
    ("a", "x|y"),
    ("a|x", "y"),
    ("a", "x/y"),
    ("a/x", "y"),
    ("a:1", "b"),
    ("a", "1:b"),
    ("a", " b"),
    ("a", "b "),
    ("a", "b"),
    ("a", "~b"),
    ("a", "ключ"),
    ("a", "%D0%BA"),
    ("a", "b" * 300),
    ("a", "b" * 301),
]
"""Distinct sources and ids, some of which would be equal if joined without escaping."""


class Identity(Base):
    """Duplicates are messages with equal source and id; a receipt reports them."""

    async def test_sources_and_ids_are_never_confused(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await self._each_arrives(url, broker, topic, None)

    @pytest.mark.anymq_needs("delayed_publish")
    async def test_sources_and_ids_are_never_confused_when_delayed(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await self._each_arrives(url, broker, topic, 0.5)

    async def _each_arrives(
        self, url: str, broker: Broker, topic: str, delay: float | None
    ) -> None:
        for source, id in ODD_PAIRS:
            async with connect(url, source=source) as publisher:
                receipt = await publisher.publish(topic, f"{source} {id}", id=id, delay=delay)
            assert not receipt.duplicate, (source, id)
        async with broker.subscribe(topic, group="g") as deliveries:
            received = await take_acked(deliveries, len(ODD_PAIRS))
        assert sorted(bodies(received)) == sorted(f"{source} {id}" for source, id in ODD_PAIRS)
        assert {(d.message.source, d.message.id) for d in received} == set(ODD_PAIRS)

    async def test_a_receipt_reports_a_duplicate(self, broker: Broker, topic: str) -> None:
        first = await broker.publish(topic, "first", id="o-17")
        again = await broker.publish(topic, "again", id="o-17")
        ids = {"more": "o-17", "new": "n"}
        many = await broker.publish_many(topic, list(ids), id=lambda body: ids[body])
        stored_once = broker.capabilities.publish_dedup.is_native
        assert (first.duplicate, again.duplicate) == (False, stored_once)
        flags = [receipt.duplicate for receipt in many if isinstance(receipt, Receipt)]
        assert flags == [stored_once, False]
        if stored_once:
            assert again == Receipt("o-17", topic, first.position, duplicate=True)
        expected = ["first", "new"] if stored_once else ["again", "first", "more", "new"]
        async with broker.subscribe(topic, group="g") as deliveries:
            assert sorted(bodies(await take_acked(deliveries, len(expected)))) == expected
            await silent(deliveries, 0.3)

    @pytest.mark.anymq_needs("delayed_publish")
    async def test_a_receipt_reports_a_delayed_duplicate(self, broker: Broker, topic: str) -> None:
        receipts = [await broker.publish(topic, "x", id="o-17", delay=0.5) for _ in range(2)]
        stored_once = broker.capabilities.publish_dedup.is_native
        assert [receipt.duplicate for receipt in receipts] == [False, stored_once]
        assert [receipt.position for receipt in receipts] == [None, None]
        async with broker.subscribe(topic, group="g") as deliveries:
            await take_acked(deliveries, 1 if stored_once else 2)
            await silent(deliveries, 0.5)

    async def test_a_generated_id_published_again_is_a_duplicate(
        self, broker: Broker, topic: str
    ) -> None:
        first = await broker.publish(topic, "x")
        again = await broker.publish(topic, "x", id=first.id)
        assert again.duplicate is broker.capabilities.publish_dedup.is_native

    async def test_idempotency_distinguishes_sources_topics_and_groups(
        self, url: str, topic: str
    ) -> None:
        app = App(url)
        store = Idempotency(f"memory://{random_name()}")
        got: Counter[tuple[str, str, str | None, str]] = Counter()
        pairs = [("a", "x|y"), ("a|x", "y"), ("b", "y")]
        subscriptions = [
            (name, group) for name in (topic, f"{topic}.other") for group in ("g", "h")
        ]

        async def handle(delivery: Delivery) -> None:
            message = delivery.message
            got[delivery.topic, delivery.group or "", message.source, message.id] += 1

        for name, group in subscriptions:
            app.subscriber(name, group=group, idempotency=store)(handle)
        async with app:
            for source, id in pairs:
                async with connect(url, source=source) as publisher:
                    for name in (topic, f"{topic}.other"):
                        for _ in range(2):
                            await publisher.publish(name, "x", id=id)
                            await publisher.publish(name, "x", id=id)
            await until(lambda: len(got) == len(pairs) * len(subscriptions))
            await asyncio.sleep(0.3)
        assert set(got.values()) == {1}

    async def test_broadcast_subscribers_that_share_a_store_get_each_message(
        self, url: str, topic: str
    ) -> None:
        store = Idempotency(f"memory://{random_name()}")
        got: Counter[str] = Counter()

        def reader(name: str) -> App:
            app = App(url)

            @app.subscriber(topic, group=None, idempotency=store)
            async def handle(body: str) -> None:
                got[f"{name} {body}"] += 1

            return app

        async with reader("one") as one, reader("two"):
            for _ in range(2):
                await one.publish(topic, "x", id="o-17")
            await one.publish(topic, "last")
            await until(lambda: got["one last"] and got["two last"])
        assert got == {f"{name} {body}": 1 for name in ("one", "two") for body in ("x", "last")}
