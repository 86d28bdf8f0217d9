"""Settlement: each method has the same effect on every backend."""

from __future__ import annotations

import asyncio
import time

import pytest

from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ...errors import AlreadySettled
from ...middleware import Acknowledge, DeadLetter, Retry
from ...wire import dead_letter_headers as why
from ..tools import WAIT_SECONDS, bodies, silent, take, take_acked, take_one_of, until, worker
from .base import Base

CLOCK_TOLERANCE = 0.02
"""Seconds by which the clocks of two processes on one machine may differ."""


class Settlement(Base):
    """ack, nack, reject, release, extend: once, repeated, stale, and after a crash."""

    async def test_nack_redelivers_counted_and_not_early(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x", key="k", headers={"h": "v"})
        async with broker.subscribe(topic, group="g") as deliveries:
            (first,) = await take(deliveries, 1)
            started = time.monotonic()
            await first.nack(1.5)
            (second,) = await take(deliveries, 1)
            elapsed = time.monotonic() - started
            assert elapsed >= 1.5 - CLOCK_TOLERANCE
            assert (first.attempt, second.attempt) == (1, 2)
            assert second.message == first.message
            await second.nack()
            (third,) = await take(deliveries, 1)
            assert third.attempt == 3
            await third.ack()
            await silent(deliveries, 0.5)

    async def test_a_delayed_redelivery_blocks_no_other_message(
        self, broker: Broker, topic: str
    ) -> None:
        async with broker.subscribe(topic, group="g", prefetch=5) as deliveries:
            await broker.publish(topic, "failing", key="k")
            (failing,) = await take(deliveries, 1)
            await failing.nack(300)
            await broker.publish_many(topic, [str(n) for n in range(20)], key="k")
            assert len(await take_acked(deliveries, 20)) == 20

    async def test_each_redelivery_arrives_after_its_own_delay(
        self, broker: Broker, topic: str
    ) -> None:
        delays = {"slow": 3.0, "quick": 0.6, "middle": 1.5}
        started: dict[str, float] = {}
        back: dict[str, float] = {}
        await broker.publish_many(topic, list(delays))
        async with broker.subscribe(topic, group="g") as deliveries:
            for delivery in await take(deliveries, 3):
                name = delivery.message.body.decode()
                started[name] = time.monotonic()
                await delivery.nack(delays[name])
            for _ in delays:
                (delivery,) = await take_acked(deliveries, 1)
                back[delivery.message.body.decode()] = time.monotonic()
        for name, delay in delays.items():
            assert back[name] - started[name] >= delay - CLOCK_TOLERANCE
        assert sorted(back, key=back.__getitem__) == ["quick", "middle", "slow"]

    async def test_attempts_and_delay_survive_the_process(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.persistent:
            assert broker.capabilities.persistent.note
            return
        await broker.publish(topic, "x")
        async with connect(url) as other, other.subscribe(topic, group="g") as deliveries:
            (first,) = await take(deliveries, 1)
            await first.nack()
            (second,) = await take(deliveries, 1)
            started = time.monotonic()
            await second.nack(2.0)
        async with connect(url) as third, third.subscribe(topic, group="g") as deliveries:
            (again,) = await take_acked(deliveries, 1)
            assert time.monotonic() - started >= 2.0 - CLOCK_TOLERANCE
            assert (again.attempt, again.message) == (3, first.message)

    async def test_reject_dead_letters_a_message_once(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, {"n": 1}, key="k", headers={"h": "v"}, type="Odd")
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take(deliveries, 1)
            await delivery.reject("not\nfor us: ü")
            async with broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
                (letter,) = await take_acked(letters, 1)
                await silent(letters, 0.3)
            await silent(deliveries, 0.3)
        original, dead = delivery.message, letter.message
        assert (dead.id, dead.body, dead.key) == (original.id, original.body, original.key)
        assert (dead.type, dead.time, dead.source) == ("Odd", original.time, original.source)
        assert letter.attempt == 1
        assert dead.headers["h"] == "v"
        assert dead.headers[why.REASON] == "not for us: ü"
        assert dead.headers[why.TOPIC] == topic
        assert dead.headers[why.GROUP] == "g"
        assert dead.headers[why.ATTEMPTS] == "1"
        assert dead.headers[why.FIRST_SEEN]

    async def test_release_is_not_an_attempt(self, url: str, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            (first,) = await take(deliveries, 1)
            await first.nack()
            (second,) = await take(deliveries, 1)
            await second.release()
            (third,) = await take(deliveries, 1)
            assert (second.attempt, third.attempt) == (2, 2)
            await third.release()
            (fourth,) = await take(deliveries, 1)
            assert fourth.attempt == 2
            assert fourth.message == first.message
            await fourth.ack()

    async def test_a_release_beside_a_nack_is_not_counted(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, [str(number) for number in range(8)])
        expected = {str(number).encode(): 1 + number % 2 for number in range(8)}
        async with broker.subscribe(topic, group="g") as deliveries:
            held = await take(deliveries, 8)
            await asyncio.gather(
                *(one.nack() if expected[one.message.body] == 2 else one.release() for one in held)
            )
        async with broker.subscribe(topic, group="g") as deliveries:
            again = await take(deliveries, 8)
            assert {one.message.body: one.attempt for one in again} == expected
            for one in again:
                await one.ack()

    async def test_a_release_keeps_the_attempts_made_in_process(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        begun: list[int] = []

        async def handle(delivery: Delivery) -> None:
            begun.append(delivery.attempt)
            if delivery.attempt < 3:
                raise ValueError("again")
            await asyncio.Event().wait()

        retry = Retry(attempts=5, initial=0.01, in_place=1.0)
        await broker.publish(topic, "x")
        async with (
            connect(url) as other,
            other.subscribe(
                topic,
                group="g",
                handler=handle,
                middleware=[Acknowledge(), DeadLetter(), retry],
                drain_timeout=0,
            ),
        ):
            await until(lambda: begun == [1, 2, 3])
        async with broker.subscribe(topic, group="g") as deliveries:
            (again,) = await take_acked(deliveries, 1)
            assert again.attempt == 3
            await silent(deliveries, 0.3)

    async def test_closing_releases_unsettled_messages(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish_many(topic, [str(n) for n in range(10)])
        async with (
            connect(url) as other,
            other.subscribe(topic, group="g", prefetch=10) as deliveries,
        ):
            held = await take(deliveries, 4)
            await held[1].ack()
        async with broker.subscribe(topic, group="g") as deliveries:
            rest = await take_acked(deliveries, 9)
            assert {d.attempt for d in rest} == {1}
            assert held[1].message.body.decode() not in bodies(rest)

    async def test_repeating_a_settlement_does_nothing_and_a_different_one_raises(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish_many(topic, ["a", "b"])
        async with broker.subscribe(topic, group="g") as deliveries:
            first, second = await take(deliveries, 2)
            await first.ack()
            await first.ack()
            with pytest.raises(AlreadySettled):
                await first.nack()
            await second.nack()
            await second.nack()
            with pytest.raises(AlreadySettled):
                await second.ack()
            (again,) = await take_acked(deliveries, 1)
            assert again.message.id == second.message.id
            await silent(deliveries, 0.3)

    async def test_a_slow_handler_keeps_its_lease(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "slow")
        async with (
            connect(url) as other,
            broker.subscribe(topic, group="g", ack_deadline=1.5) as first,
            other.subscribe(topic, group="g", ack_deadline=1.5) as second,
        ):
            delivery, owner = await take_one_of(first, second)
            await silent(second if owner is first else first, 3.5)
            await delivery.ack()

    async def test_extend_renews_a_lease_without_auto_extend(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        async with broker.subscribe(
            topic, group="g", ack_deadline=2.0, auto_extend=False
        ) as deliveries:
            (delivery,) = await take(deliveries, 1)
            for _ in range(3):
                await silent(deliveries, 0.8)
                await delivery.extend()
            await delivery.ack()
            await silent(deliveries, 2.5)

    async def test_an_expired_lease_moves_the_message_and_a_stale_ack_is_ignored(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        await broker.publish(topic, "x")
        async with (
            connect(url) as other,
            broker.subscribe(topic, group="g", ack_deadline=1.5, auto_extend=False) as first,
        ):
            (late,) = await take(first, 1)
            async with other.subscribe(topic, group="g", ack_deadline=10) as second:
                again, _ = await take_one_of(first, second)
                assert (again.message.id, again.attempt) == (late.message.id, 2)
                await late.ack()
                await again.nack(0.5)
                third, _ = await take_one_of(first, second)
                assert third.attempt == 3, "the stale ack settled another member's delivery"
                await third.ack()

    async def test_a_killed_consumer_loses_nothing_and_repeats_nothing_acked(
        self, killed_url: str, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        sent = [str(number) for number in range(30)]
        await broker.publish_many(topic, sent, key=lambda body: body)
        odd = [body for body in sent if int(body) % 2]
        async with worker(
            "take",
            url=killed_url,
            topic=topic,
            group="g",
            count=len(sent),
            ack=odd,
            window=self.harness.ack_window,
            deadline=2.0,
        ) as process:
            held = await process.hear("holding")
            assert sorted(held["bodies"]) == sorted(sent)
            await process.kill()
        async with broker.subscribe(topic, group="g", ack_deadline=2.0) as deliveries:
            rest = await take_acked(deliveries, len(sent) - len(odd), within=2 * WAIT_SECONDS)
            assert sorted(bodies(rest)) == sorted(set(sent) - set(odd))
            counted = broker.capabilities.attempt_count.is_native
            assert {d.attempt for d in rest} == {2 if counted else 1}
            await silent(deliveries, 1.0)

    async def test_in_flight_falls_to_zero(self, broker: Broker, topic: str) -> None:
        await broker.publish_many(topic, [str(n) for n in range(50)])
        async with broker.subscribe(topic, group="g") as deliveries:
            held = await take(deliveries, 50)
            assert deliveries.in_flight == 50
            for delivery in held:
                await delivery.ack()
            await until(lambda: deliveries.in_flight == 0)
