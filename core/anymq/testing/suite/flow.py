"""Flow control: pausing, credit, the kill switch, poison messages and stopped keys."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from ...app import App
from ...broker import Broker
from ...consuming.delivery import Delivery
from ...middleware import KillSwitch, Retry
from ...wire import dead_letter_headers as why
from ..tools import WAIT_SECONDS, silent, take, take_acked, until, worker
from .base import Base


class Flow(Base):
    """The limits of a subscription, and their end."""

    async def test_a_paused_subscription_dispatches_nothing(
        self, broker: Broker, topic: str
    ) -> None:
        done: list[str] = []

        async def handle(body: str) -> None:
            done.append(body)

        async with broker.subscribe(topic, group="g", handler=handle) as subscription:
            await broker.publish(topic, "before")
            await until(lambda: done == ["before"])
            subscription.pause()
            assert subscription.paused
            await broker.publish_many(topic, ["a", "b", "c"])
            await asyncio.sleep(1)
            assert done == ["before"]
            subscription.resume()
            await until(lambda: len(done) == 4)
        assert sorted(done[1:]) == ["a", "b", "c"]

    async def test_a_paused_member_keeps_its_lease(self, broker: Broker, topic: str) -> None:
        async with broker.subscribe(topic, group="g", ack_deadline=2) as deliveries:
            await broker.publish(topic, "x")
            (held,) = await take(deliveries, 1)
            deliveries.pause()
            await asyncio.sleep(3)
            await held.ack()
            deliveries.resume()
            await silent(deliveries, 1)

    async def test_concurrency_can_be_changed_while_it_runs(
        self, broker: Broker, topic: str
    ) -> None:
        running: set[str] = set()
        go = asyncio.Semaphore(0)

        async def handle(body: str) -> None:
            running.add(body)
            try:
                await go.acquire()
            finally:
                running.discard(body)

        await broker.publish_many(topic, [str(n) for n in range(12)])
        async with broker.subscribe(
            topic, group="g", handler=handle, concurrency=2, drain_timeout=0
        ) as subscription:
            await until(lambda: len(running) == 2)
            subscription.concurrency = 5
            await until(lambda: len(running) == 5)
            subscription.concurrency = 1
            for left in (4, 3, 2, 1, 1):
                go.release()
                await until(lambda left=left: len(running) == left)  # type: ignore[misc]
            await asyncio.sleep(0.2)
            assert len(running) == 1

    async def test_unsettled_messages_are_bounded_in_bytes(
        self, broker: Broker, topic: str
    ) -> None:
        size, most = 10_000, 100_000
        await broker.publish_many(topic, [b"x" * size for _ in range(60)])
        go = asyncio.Event()
        done = 0

        async def handle(body: bytes) -> None:
            nonlocal done
            await go.wait()
            done += 1

        async with broker.subscribe(
            topic, group="g", handler=handle, concurrency=2, prefetch_bytes=most
        ) as subscription:
            await until(lambda: subscription.in_flight >= 2)
            # The size of the first messages is unknown until they arrive.
            await asyncio.sleep(1)
            assert subscription.in_flight < 50
            go.set()
            peak = 0
            while done < 60:
                peak = max(peak, subscription.in_flight)
                await asyncio.sleep(0.01)
        assert peak < 50

    async def test_client_buffers_are_bounded_in_bytes(self, broker: Broker, topic: str) -> None:
        most = 4_000_000
        for _ in range(10):
            await broker.publish_many(topic, [b"x" * 500_000 for _ in range(10)])
        begun = asyncio.Event()

        async def handle(body: bytes) -> None:
            begun.set()
            await asyncio.Event().wait()

        tracemalloc.start()
        try:
            async with broker.subscribe(
                topic,
                group="g",
                handler=handle,
                prefetch_bytes=most,
                prefetch=1000,
                drain_timeout=0,
            ) as subscription:
                await asyncio.wait_for(begun.wait(), WAIT_SECONDS)
                # Messages that a client fetches unasked arrive now.
                await asyncio.sleep(2)
                _, peak = tracemalloc.get_traced_memory()
                held = subscription.in_flight
        finally:
            tracemalloc.stop()
        assert held <= 2 * most / 500_000
        assert peak < 35_000_000, "of a backlog of 50 MB"

    async def test_an_outage_does_not_fill_the_dead_letters(self, url: str, topic: str) -> None:
        app = App(url)
        states: list[str] = []
        done: list[str] = []
        down = True

        @app.subscriber(
            topic,
            group="g",
            concurrency=4,
            retry=Retry(attempts=3, initial=0.2, jitter=False, in_place=0),
            kill_switch=KillSwitch(
                minimum=5, pause=1.5, on_change=lambda state, _: states.append(state)
            ),
        )
        async def handle(body: str) -> None:
            if down:
                raise ConnectionError("the shop is down")
            done.append(body)

        sent = [str(n) for n in range(40)]
        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            await app.broker.publish_many(topic, sent)
            await until(lambda: states[-2:] == ["half-open", "open"] and len(states) >= 5)
            down = False
            await until(lambda: states[-1] == "closed")
            await until(lambda: set(done) == set(sent))
            await silent(letters, 0.5)

    async def test_draining_an_open_kill_switch_releases_its_messages(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        app = App(url)
        states: list[str] = []

        @app.subscriber(
            topic,
            group="g",
            concurrency=2,
            kill_switch=KillSwitch(
                minimum=2, pause=6, on_change=lambda state, _: states.append(state)
            ),
            retry=Retry(attempts=1),
        )
        async def handle(body: str) -> None:
            await asyncio.sleep(0.05)
            raise ConnectionError("down")

        await broker.publish_many(topic, [str(n) for n in range(6)])
        async with app:
            await until(lambda: states == ["open"])
            closing = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - closing < 5, (
            "draining does not wait for the pause"
        )
        async with broker.subscribe(topic, group="g") as deliveries:
            left = await take_acked(deliveries, 5)
            assert {delivery.attempt for delivery in left} == {1}, (
                "an open switch counts no attempt"
            )

    async def test_a_poison_message_is_dead_lettered(
        self, killed_url: str, broker: Broker, topic: str, tmp_path: Path
    ) -> None:
        if not broker.capabilities.processes:
            assert broker.capabilities.processes.note
            return
        attempts = 2
        arguments = {
            "url": killed_url,
            "topic": topic,
            "group": "g",
            "marker": f"sqlite:///{tmp_path}/marks.db",
            "attempts": attempts,
        }
        starts: Counter[str] = Counter()
        async with broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            taking = asyncio.create_task(take_acked(letters, 1, within=3 * WAIT_SECONDS))
            while not taking.done():
                async with worker("poison", **arguments) as process:
                    process.listen("handling")
                    if not starts:
                        await broker.publish_many(topic, ["harmless", "poison"])
                    ended = asyncio.create_task(process.process.wait())
                    await asyncio.wait((ended, taking), return_when=asyncio.FIRST_COMPLETED)
                    ended.cancel()
                    await process.kill()
                    starts["process"] += 1
                    starts.update(e["body"] for e in process.said if e["event"] == "handling")
            (letter,) = await taking
        assert letter.message.body == b"poison"
        assert starts["poison"] <= attempts, starts
        assert starts["harmless"] >= 1
        assert "earlier attempts crashed" in letter.message.headers[why.REASON]

    @pytest.mark.anymq_needs("ordered")
    async def test_a_key_lane_stops_when_retries_are_exhausted(
        self, url: str, broker: Broker, topic: str
    ) -> None:
        app = App(url)
        seen: list[tuple[str, int]] = []
        fixed = False

        @app.subscriber(
            topic,
            group="g",
            ordered=True,
            concurrency=2,
            retry=Retry(attempts=2, initial=0.05, jitter=False, exhausted="stop"),
        )
        async def handle(body: str, delivery: Delivery) -> None:
            seen.append((body, delivery.attempt))
            if body == "a1" and not fixed:
                raise ValueError("cannot")

        async with app, app.broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            (subscription,) = app.subscriptions
            for body in ("a1", "b1", "a2", "b2"):
                await app.publish(topic, body, key=body[0])
            await until(lambda: subscription.stopped and len(seen) == 4)
            assert list(subscription.stopped) == ["a"]
            assert "retries exhausted after 2 attempts" in subscription.stopped["a"]
            fixed = True
            subscription.restart("a")
            await until(lambda: len(seen) == 6)
            await silent(letters, 0.3)
        assert [item for item in seen if item[0][0] == "a"] == [
            ("a1", 1),
            ("a1", 2),
            ("a1", 1),
            ("a2", 1),
        ]
        assert [item for item in seen if item[0][0] == "b"] == [("b1", 1), ("b2", 1)]
