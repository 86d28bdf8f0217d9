"""Durability of confirmed publishes."""

from __future__ import annotations

from ...broker import Broker
from ...connect import connect
from ..tools import take_acked, worker
from .base import Base


class Durability(Base):
    """Confirmed messages survive the publisher. `Faults` tests the death of the server."""

    async def test_confirmed_messages_of_a_killed_publisher_are_delivered(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        async with worker("publish", url=killed_url, topic=topic, count=2000) as process:
            for _ in range(40):
                await process.hear("published")
            await process.kill()
        confirmed = {event["body"] for event in process.said if event["event"] == "published"}
        assert len(confirmed) >= 40
        async with broker.subscribe(topic, group="g") as deliveries:
            received: set[str] = set()
            while not confirmed <= received:
                (delivery,) = await take_acked(deliveries, 1)
                received.add(delivery.message.body.decode())

    async def test_messages_outlive_the_connection(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        async with connect(url) as other:
            await other.publish(topic, "x")
            group = other.subscribe(topic, group="g", start="latest")
            async with group:
                pass
            await other.publish(topic, "y")
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take_acked(deliveries, 1)
            assert delivery.message.body == b"y", (
                "the group kept its position while no member was connected"
            )
