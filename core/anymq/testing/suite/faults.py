"""Tests that kill and pause a server. All tests of a backend run in one worker, on its server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ...connect import connect
from ...errors import ConnectionLost, PublishTimeout, TransientError
from ..harness import Server
from ..tools import take, take_acked, until
from .broadcast_faults import BroadcastFaults

CLOCK_TOLERANCE = 0.02
"""Seconds by which the clocks of a client and its server may differ on one machine."""


class Faults(BroadcastFaults):
    """Fault tests for backends with a server."""

    @pytest_asyncio.fixture
    async def server(self) -> AsyncIterator[Server]:
        server = self.harness.server()
        await asyncio.to_thread(server.up)
        yield server
        await asyncio.to_thread(server.up)

    async def test_confirmed_publishes_survive_a_kill(self, server: Server, topic: str) -> None:
        async with connect(server.url) as broker:
            receipts = await broker.publish_many(topic, [str(n) for n in range(200)], timeout=30)
            await asyncio.to_thread(server.kill)
        assert not any(isinstance(receipt, Exception) for receipt in receipts)
        await asyncio.to_thread(server.up)
        async with (
            connect(server.url) as broker,
            broker.subscribe(topic, group="g") as deliveries,
        ):
            received = await take_acked(deliveries, 200, within=60)
        assert {d.message.body.decode() for d in received} == {str(n) for n in range(200)}

    async def test_nothing_is_lost_over_a_restart_under_load(
        self, server: Server, topic: str
    ) -> None:
        confirmed: set[str] = set()
        got: Counter[str] = Counter()
        stop = asyncio.Event()

        async def publish(name: int) -> None:
            number = 0
            while not stop.is_set():
                body = f"{name}.{number}"
                number += 1
                try:
                    await broker.publish(topic, body, timeout=60)
                except TransientError:
                    continue  # ambiguous: it may have been stored
                confirmed.add(body)
                await asyncio.sleep(0.005)

        async def handle(body: str) -> None:
            got[body] += 1

        async with (
            connect(server.url) as broker,
            broker.subscribe(topic, group="g", handler=handle, concurrency=4, ack_deadline=5),
        ):
            publishers = [asyncio.create_task(publish(name)) for name in range(4)]
            await until(lambda: len(got) > 100)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.up)
            answered = time.monotonic()
            seen, published = len(got), len(confirmed)
            await until(lambda: len(got) > seen + 50, within=self.harness.recovery)
            await until(lambda: len(confirmed) > published + 50, within=self.harness.recovery)
            recovered = time.monotonic() - answered
            stop.set()
            await asyncio.gather(*publishers)
            await until(
                lambda: confirmed <= set(got), within=60, what="every confirmed message is handled"
            )
        assert recovered < self.harness.recovery

    async def test_a_delayed_nack_survives_a_kill(self, server: Server, topic: str) -> None:
        async with connect(server.url) as broker:
            await broker.publish(topic, "x")
            async with broker.subscribe(topic, group="g", ack_deadline=5) as deliveries:
                (first,) = await take(deliveries, 1)
                started = time.monotonic()
                await first.nack(4.0)
                await until(lambda: deliveries.in_flight == 0)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.up)
                (again,) = await take_acked(deliveries, 1, within=60)
                assert time.monotonic() - started >= 4.0 - CLOCK_TOLERANCE
                assert again.attempt == 2
                assert again.message == first.message

    async def test_publishing_to_a_dead_server_fails_in_time(
        self, server: Server, topic: str
    ) -> None:
        async with connect(server.url) as broker:
            await broker.publish(topic, "x")
            await asyncio.to_thread(server.kill)
            for name in (topic, f"{topic}.new"):
                started = time.monotonic()
                with pytest.raises(PublishTimeout, match=name) as caught:
                    await broker.publish(name, "y", timeout=2)
                assert time.monotonic() - started < 10
                assert isinstance(caught.value, TransientError)
            await asyncio.to_thread(server.up)
            await broker.publish(topic, "z", timeout=self.harness.recovery)

    async def test_closing_ends_while_the_server_is_dead(self, server: Server, topic: str) -> None:
        broker = await connect(server.url)
        await broker.publish_many(topic, [str(n) for n in range(10)])
        subscription = broker.subscribe(topic, group="g", drain_timeout=1)
        await subscription.__aenter__()
        held = await take(subscription, 5)
        await asyncio.to_thread(server.kill)
        await held[0].ack()
        await held[1].nack(1)
        started = time.monotonic()
        await subscription.aclose()
        assert time.monotonic() - started < 30
        started = time.monotonic()
        await broker.aclose()
        assert time.monotonic() - started < 30

    async def test_a_stopped_server_delays_messages_and_loses_none(
        self, server: Server, topic: str
    ) -> None:
        async with (
            connect(server.url) as broker,
            broker.subscribe(topic, group="g", ack_deadline=10) as deliveries,
        ):
            await broker.publish(topic, "before")
            await take_acked(deliveries, 1)
            await asyncio.to_thread(server.pause)
            try:
                started = time.monotonic()
                with pytest.raises(PublishTimeout):
                    await broker.publish(topic, "stalled", timeout=2)
                assert time.monotonic() - started < 10
            finally:
                await asyncio.to_thread(server.resume)
            await broker.publish(topic, "after", timeout=self.harness.recovery)
            received: set[str] = set()
            while "after" not in received:
                (delivery,) = await take_acked(deliveries, 1, within=self.harness.recovery)
                received.add(delivery.message.body.decode())
            assert received <= {"stalled", "after"}

    async def test_connect_waits_for_a_server_that_is_starting(
        self, server: Server, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await asyncio.to_thread(server.kill)
        url = f"{server.url}{'&' if '?' in server.url else '?'}connect_timeout=60"
        connecting = asyncio.ensure_future(connect(url).__aenter__())
        await until(lambda: "retrying for 60 s" in caplog.text)
        await asyncio.to_thread(server.up)
        broker = await connecting
        try:
            await broker.publish(topic, "x", timeout=30)
        finally:
            await broker.aclose()

    async def test_connecting_to_a_dead_address_fails_in_time_without_showing_the_password(
        self,
    ) -> None:
        started = time.monotonic()
        url = self.harness.dead_url()
        with pytest.raises(ConnectionLost) as caught:
            await connect(f"{url}{'&' if '?' in url else '?'}connect_timeout=3")
        assert time.monotonic() - started < 15
        text = f"{caught.value} {caught.value!r}"
        assert "hunter2" not in text
        assert url.partition("://")[0] in text
