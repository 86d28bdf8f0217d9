"""Replay: topics are logs that can be read again from any position."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ...broker import Broker
from ...connect import connect
from ...driver.specs import Start
from ...errors import ConfigurationError, NotFound, StateError, UnsupportedOperation
from ...topic import Topic
from ..tools import bodies, silent, take, take_acked, until
from .base import Base
from .needs import needs

NUMBERS = [str(number) for number in range(10)]
GAP_SECONDS = 1.1
"""Seconds between two messages that a start at a time must distinguish."""


async def moment_between(broker: Broker, topic: str) -> datetime:
    """Publish NUMBERS with one key, half before and half after the time returned."""
    await broker.publish_many(topic, NUMBERS[:5], key="k")
    await asyncio.sleep(GAP_SECONDS)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.1)
    await broker.publish_many(topic, NUMBERS[5:], key="k")
    return moment


async def positions(broker: Broker, topic: str) -> list[str]:
    """Publish NUMBERS with one key; return the positions."""
    await broker.publish_many(topic, NUMBERS, key="k")
    found = [stored.position async for stored in broker.admin.browse(topic)]
    assert len(found) == len(set(found)) == len(NUMBERS)
    return found


@needs("replay")
class Replay(Base):
    """`start` at a position or a time, `admin.seek`, `admin.browse`."""

    async def test_replay_starts_a_new_group_at_a_position(
        self, broker: Broker, topic: str
    ) -> None:
        found_at = await positions(broker, topic)
        async with broker.subscribe(topic, group="g", start=found_at[4]) as deliveries:
            assert bodies(await take_acked(deliveries, 6)) == NUMBERS[4:]
            await silent(deliveries, 0.3)

    async def test_replay_starts_a_new_group_at_a_time(self, broker: Broker, topic: str) -> None:
        moment = await moment_between(broker, topic)
        async with broker.subscribe(topic, group="g", start=moment) as deliveries:
            assert bodies(await take_acked(deliveries, 5)) == NUMBERS[5:]
            await broker.publish(topic, "live", key="k")
            assert bodies(await take_acked(deliveries, 1)) == ["live"]

    async def test_replay_starts_a_broadcast_reader_at_a_position_or_time(
        self, broker: Broker, topic: str
    ) -> None:
        moment = await moment_between(broker, topic)
        found_at = [stored.position async for stored in broker.admin.browse(topic)]
        starts: list[tuple[Start, list[str]]] = [
            ("earliest", NUMBERS),
            (found_at[3], NUMBERS[3:]),
            (moment, NUMBERS[5:]),
        ]
        for start, expected in starts:
            async with broker.subscribe(topic, group=None, start=start) as deliveries:
                assert bodies(await take_acked(deliveries, len(expected))) == expected
                await silent(deliveries, 0.2)

    @pytest.mark.parametrize("kind", ["group", "ordered", "broadcast", "seek"])
    async def test_replay_from_a_time_in_the_future_begins_at_the_end(
        self, broker: Broker, topic: str, kind: str
    ) -> None:
        ordered = kind == "ordered"
        if ordered and not broker.capabilities.ordered:
            pytest.skip("no ordered groups")
        future = datetime.now(UTC) + timedelta(days=365)
        await broker.publish(topic, "old", key="k")
        group = None if kind == "broadcast" else "g"
        if kind == "seek":
            async with broker.subscribe(topic, group=group):
                pass
            await _seek(broker, topic, future)
        start: Start | None = None if kind == "seek" else future
        async with broker.subscribe(topic, group=group, start=start, ordered=ordered) as deliveries:
            await broker.publish(topic, "new", key="k")
            assert bodies(await take_acked(deliveries, 1)) == ["new"]

    async def test_replay_starts_at_the_position_of_a_delivery(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish_many(topic, NUMBERS, key="k")
        async with broker.subscribe(topic, group="a") as deliveries:
            taken = await take_acked(deliveries, 10)
        async with broker.subscribe(topic, group="b", start=taken[7].position) as deliveries:
            assert bodies(await take_acked(deliveries, 3)) == NUMBERS[7:]

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_replay_by_seek_resets_a_group(
        self, broker: Broker, topic: str, ordered: bool
    ) -> None:
        if ordered and not broker.capabilities.ordered:
            with pytest.raises(UnsupportedOperation):
                broker.subscribe(topic, group="g", ordered=True)
            return
        found_at = await positions(broker, topic)
        moment = datetime.now(UTC)
        async with broker.subscribe(topic, group="g", ordered=ordered) as deliveries:
            assert bodies(await take_acked(deliveries, 10)) == NUMBERS
        targets: list[tuple[Start, list[str]]] = [
            ("earliest", NUMBERS),
            (found_at[6], NUMBERS[6:]),
            ("latest", []),
            (moment, []),
        ]
        for target, expected in targets:
            await _seek(broker, topic, target)
            async with broker.subscribe(topic, group="g", ordered=ordered) as deliveries:
                received = await take_acked(deliveries, len(expected))
                assert bodies(received) == expected
                assert {delivery.attempt for delivery in received} <= {1}
                await silent(deliveries, 0.3)

    async def test_replay_discards_pending_deliveries(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, NUMBERS, key="k")
        async with broker.subscribe(topic, group="g") as deliveries:
            held = await take(deliveries, 10)
            for delivery in held:
                await delivery.nack(2.0)
            await until(lambda: deliveries.in_flight == 0)
        await _seek(broker, topic, "earliest")
        async with broker.subscribe(topic, group="g") as deliveries:
            received = await take_acked(deliveries, 10)
            assert bodies(received) == NUMBERS
            assert {delivery.attempt for delivery in received} == {1}
            await silent(deliveries, 2.5)

    async def test_replay_does_not_touch_other_groups(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, NUMBERS, key="k")
        for group in ("a", "b"):
            async with broker.subscribe(topic, group=group) as deliveries:
                await take_acked(deliveries, 10)
        await _seek(broker, topic, "earliest", group="a")
        async with broker.subscribe(topic, group="b") as deliveries:
            await silent(deliveries, 0.5)

    async def test_replay_refuses_a_group_with_live_members(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            await take_acked(deliveries, 1)
            with pytest.raises(StateError):
                await broker.admin.seek(topic, "g", to="earliest")

    async def test_replay_refuses_absent_groups_and_invalid_positions(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        with pytest.raises(NotFound):
            await broker.admin.seek(topic, "absent", to="earliest")
        for wrong in ("not a position", "-1", "9:x", "earliest "):
            with pytest.raises(ConfigurationError):
                async with broker.subscribe(topic, group="g", start=wrong):
                    raise AssertionError(f"{wrong!r} is no start position")
        with pytest.raises(ConfigurationError):
            broker.subscribe(topic, group="g", start=datetime(2020, 1, 1))

    async def test_replay_by_browse_settles_nothing(self, broker: Broker, topic: str) -> None:
        partitioned = Topic[str](topic, partitions=3)
        sent = [str(number) for number in range(60)]
        await broker.publish_many(partitioned, sent, key=lambda body: f"k{int(body) % 7}")
        async with broker.subscribe(partitioned, group="g") as deliveries:
            await take_acked(deliveries, 20)
        found = [stored async for stored in broker.admin.browse(partitioned)]
        assert sorted(stored.message.body.decode() for stored in found) == sorted(sent)
        for number in range(7):
            of_key = [s.message.body.decode() for s in found if s.message.key == f"k{number}"]
            assert of_key == [body for body in sent if int(body) % 7 == number]
        again = [stored.position async for stored in broker.admin.browse(partitioned)]
        assert sorted(again) == sorted(stored.position for stored in found)
        with pytest.raises(NotFound):
            await anext(broker.admin.browse(f"{topic}.absent"))

    async def test_replay_positions_are_valid_on_another_connection(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        found_at = await positions(broker, topic)
        async with (
            connect(url) as other,
            (other if broker.capabilities.processes else broker).subscribe(
                topic, group="g", start=found_at[9]
            ) as deliveries,
        ):
            assert bodies(await take_acked(deliveries, 1)) == NUMBERS[9:]


async def _seek(broker: Broker, topic: str, to: Start, *, group: str = "g") -> None:
    """Seek as soon as the broker counts no live member."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await broker.admin.seek(topic, group, to=to)
            except StateError:
                await asyncio.sleep(0.2)
