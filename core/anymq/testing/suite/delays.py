"""Delayed messages: `publish(delay=, deliver_at=)`, stored by the broker and never early."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import pytest

from ...broker import Broker
from ...errors import ConfigurationError
from ...topic import Topic
from ..tools import WAIT_SECONDS, bodies, silent, take, take_acked, worker
from .base import Base
from .needs import needs

CLOCK_TOLERANCE = 0.02
"""Seconds by which the clocks of a client and its server may differ on one machine."""
DUE_WITHIN = 3 * WAIT_SECONDS
"""Seconds within which a delayed message arrives. On Kafka the whole cluster may share one delay
mover, and each process that another test kills stops it for the session timeout."""


@needs("delayed_publish")
class Delays(Base):
    """A delayed message is stored durably at the broker and blocks no other message."""

    async def test_delayed_messages_are_never_early(self, broker: Broker, topic: str) -> None:
        delays = [0.1, 0.3, 1.0, 1.7, 3.0]
        async with broker.subscribe(topic, group="g") as deliveries:
            due: dict[str, float] = {}
            for delay in reversed(delays):
                due[str(delay)] = time.time() + delay
                receipt = await broker.publish(topic, str(delay), delay=delay)
                assert receipt.position is None
            for delivery in [
                (await take_acked(deliveries, 1, within=DUE_WITHIN))[0] for _ in delays
            ]:
                assert delivery.attempt == 1
                assert time.time() >= due.pop(delivery.message.body.decode()) - CLOCK_TOLERANCE
        assert due == {}

    async def test_delayed_messages_arrive_in_the_order_of_their_due_times(
        self, broker: Broker, topic: str
    ) -> None:
        async with broker.subscribe(topic, group="g") as deliveries:
            began = datetime.now(UTC)
            for seconds in (4, 2, 3):
                due = began + timedelta(seconds=seconds)
                await broker.publish(topic, str(seconds), key="k", deliver_at=due)
            await broker.publish(topic, "now", key="k")
            received = bodies(await take_acked(deliveries, 4, within=DUE_WITHIN))
        assert received == ["now", "2", "3", "4"]

    async def test_a_delayed_message_reaches_every_group_and_reader(
        self, broker: Broker, topic: str
    ) -> None:
        async with (
            broker.subscribe(topic, group="a") as first,
            broker.subscribe(topic, group="b") as second,
            broker.subscribe(topic, group=None) as reader,
        ):
            receipt = await broker.publish(
                topic,
                {"order": 17},
                key="o-17",
                headers={"tenant": "é"},
                deliver_at=datetime.now(UTC) + timedelta(seconds=1),
            )
            for each in (first, second, reader):
                (delivery,) = await take_acked(each, 1, within=DUE_WITHIN)
                message = delivery.message
                assert (message.id, message.key) == (receipt.id, "o-17")
                assert dict(message.headers) == {"tenant": "é"}
                assert message.body == b'{"order":17}'
                await silent(each, 0.2)

    async def test_a_group_created_while_a_message_is_delayed_gets_it(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x", delay=3.0)
        async with broker.subscribe(topic, group="late", start="latest") as deliveries:
            assert bodies(await take_acked(deliveries, 1, within=DUE_WITHIN)) == ["x"]

    async def test_a_delayed_message_outlives_its_publisher(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            await broker.publish(topic, "0", delay=1.5)
        else:
            async with worker("publish", url=killed_url, topic=topic, count=1, delay=1.5) as other:
                await other.hear("published")
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take_acked(deliveries, 1, within=DUE_WITHIN)
        assert delivery.message.body == b"0"

    async def test_many_delayed_messages_do_not_stall_live_ones(
        self, broker: Broker, topic: str
    ) -> None:
        async with broker.subscribe(topic, group="g") as deliveries:
            far = [str(n) for n in range(2000)]
            outcomes = await broker.publish_many(topic, far, delay=timedelta(days=20), timeout=60)
            assert not [item for item in outcomes if isinstance(item, Exception)]
            await broker.publish(topic, "soon", delay=0.5)
            live = [f"live {n}" for n in range(50)]
            await broker.publish_many(topic, live)
            received = bodies(await take_acked(deliveries, 51, within=DUE_WITHIN))
            assert sorted(received) == sorted([*live, "soon"])
            await silent(deliveries, 0.5)

    async def test_a_delay_may_exceed_the_retention(self, broker: Broker, topic: str) -> None:
        short = Topic[str](topic, retention=timedelta(seconds=1))
        async with broker.subscribe(short, group="g") as deliveries:
            await broker.publish(short, "x", delay=4.0)
            assert bodies(await take_acked(deliveries, 1, within=DUE_WITHIN)) == ["x"]

    async def test_a_due_time_in_the_past_delays_nothing(self, broker: Broker, topic: str) -> None:
        async with broker.subscribe(topic, group="g") as deliveries:
            await broker.publish(topic, "1", key="k", delay=0)
            await broker.publish(topic, "2", key="k", deliver_at=datetime(2020, 1, 1, tzinfo=UTC))
            await broker.publish(topic, "3", key="k")
            assert bodies(await take_acked(deliveries, 3, within=DUE_WITHIN)) == ["1", "2", "3"]

    async def test_a_failed_delayed_message_is_retried(self, broker: Broker, topic: str) -> None:
        async with broker.subscribe(topic, group="g") as deliveries:
            await broker.publish(topic, "x", delay=0.5)
            (first,) = await take(deliveries, 1, within=DUE_WITHIN)
            await first.nack(0.3)
            (again,) = await take_acked(deliveries, 1, within=DUE_WITHIN)
        assert (again.message, again.attempt) == (first.message, 2)

    async def test_invalid_delays_are_refused(self, broker: Broker, topic: str) -> None:
        now = datetime.now(UTC)
        bad: list[tuple[float | timedelta | None, datetime | None]] = [
            (-1, None),
            (math.nan, None),
            (timedelta(days=400), None),
            (1, now),
            (None, datetime(2030, 1, 1)),
        ]
        for delay, at in bad:
            with pytest.raises(ConfigurationError):
                await broker.publish(topic, "x", delay=delay, deliver_at=at)
            with pytest.raises(ConfigurationError):
                await broker.publish_many(topic, ["x"], delay=delay, deliver_at=at)
