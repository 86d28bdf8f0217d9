"""Leases of members that stall or have wrong clocks, and those of live ones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from ...broker import Broker
from ...connect import connect
from ...consuming.delivery import Delivery
from ..tools import until, worker
from .base import Base

LEASE = 3.0
"""Seconds of `ack_deadline` in these tests."""


class Leases(Base):
    """A live member keeps its messages; a stalled one handles none that others have handled."""

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    async def test_a_stopped_member_that_resumes_handles_nothing_of_its_successors(
        self, broker: Broker, url: str, topic: str, ordered: bool
    ) -> None:
        if not broker.capabilities.processes or (ordered and not broker.capabilities.ordered):
            return
        url = f"{url}{'&' if '?' in url else '?'}{self.harness.quick_loss}"
        count = 60
        here: list[str] = []

        async def handle(body: str) -> None:
            here.append(body)

        await broker.publish_many(topic, [str(n) for n in range(count)], key=lambda _: "k")
        there = {"url": url, "topic": topic, "group": "g", "ordered": ordered, "deadline": LEASE}
        async with worker("blocking", **there) as process, connect(url) as successor:
            begun = process.listen("handling")
            await until(lambda: len(begun) >= 3)
            process.stop()
            async with successor.subscribe(
                topic, group="g", handler=handle, ordered=ordered, ack_deadline=LEASE
            ):
                known = len(begun)
                await until(lambda: len({e["body"] for e in begun} | set(here)) == count, within=90)
                await asyncio.sleep(self.harness.ack_window)
            handled = set(here)
            assert len(handled) > count // 2
            process.wake()
            await broker.publish(topic, "last", key="k")
            await until(lambda: any(e["body"] == "last" for e in begun), within=90)
        again = [e["body"] for e in begun[known:] if e["body"] in handled]
        # When the process stopped, one message may have been in its handler.
        assert len(again) <= 1, again

    async def test_a_handler_that_blocks_the_event_loop_keeps_its_message(
        self, broker: Broker, url: str, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun: list[tuple[str, int]] = []

        async def handle(body: str, delivery: Delivery) -> None:
            begun.append((body, delivery.attempt))
            if body == "long":
                time.sleep(1.8 * LEASE)  # noqa: ASYNC251

        async with connect(url) as other:
            here = broker.subscribe(topic, group="g", handler=handle, ack_deadline=LEASE)
            there = other.subscribe(topic, group="g", handler=handle, ack_deadline=LEASE)
            async with here, there:
                message = await broker.publish(topic, "long")
                await until(lambda: ("long", 1) in begun)
                await broker.publish(topic, "after")
                await until(lambda: ("after", 1) in begun)
                await until(lambda: here.in_flight + there.in_flight == 0)
        assert sorted(begun) == [("after", 1), ("long", 1)]
        (line,) = [m for m in caplog.messages if "blocked the event loop for" in m]
        assert message.id in line
        assert topic in line
        assert "its lease was kept" in line
        assert "leases.py:" in line

    @pytest.mark.parametrize("step", [60.0, -60.0])
    async def test_a_wrong_wall_clock_moves_no_message_of_a_live_member(
        self, broker: Broker, url: str, topic: str, step: float
    ) -> None:
        if not (broker.capabilities.processes and broker.capabilities.extend.is_native):
            return
        begun: list[str] = []
        free = asyncio.Event()

        async def handle(body: str) -> None:
            begun.append(body)
            if body == "held here":
                await free.wait()

        async def both_receive(handled_there: list[dict[str, Any]]) -> None:
            """Publish until each member has handled a message later than the held ones."""
            known = len(begun), len(handled_there)
            for number in range(1000):
                await broker.publish(topic, f"probe {number}")
                if len(begun) > known[0] and len(handled_there) > known[1]:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("one of the two members gets no message")

        here: dict[str, Any] = {"handler": handle, "ack_deadline": 30, "prefetch": 1}
        there = {"url": url, "topic": topic, "group": "g", "step": step, "deadline": 30}
        async with broker.subscribe(topic, group="g", **here):
            await broker.publish(topic, "held here")
            await until(lambda: begun == ["held here"])
            async with worker("wrong_clock", **there) as process:
                handled_there = process.listen("handling")
                await broker.publish(topic, "held there")
                await until(lambda: [e["body"] for e in handled_there] == ["held there"])
                async with broker.subscribe(topic, group="g", **here):
                    await both_receive(handled_there)
                    await both_receive(handled_there)
                assert "held there" not in begun
                assert "held here" not in [e["body"] for e in handled_there]
            free.set()

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    async def test_a_message_finished_after_its_lease_is_not_handled_again(
        self, broker: Broker, url: str, topic: str, ordered: bool
    ) -> None:
        if ordered and not broker.capabilities.ordered:
            return
        runs: Counter[str] = Counter()

        async def handle(body: str) -> None:
            runs[body] += 1
            if body == "slow":
                time.sleep(self.harness.loss)  # noqa: ASYNC251

        names = ["before", "slow", "after"]
        await broker.publish_many(topic, names, key=lambda _: "k")
        url = f"{url}{'&' if '?' in url else '?'}{self.harness.quick_loss}"
        async with connect(url) as member:
            here = member.subscribe(
                topic, group="g", handler=handle, ordered=ordered, ack_deadline=LEASE
            )
            async with here:
                await until(lambda: len(runs) == 3, within=90)
                # A redelivered message arrives now, before this one.
                await broker.publish(topic, "last", key="k")
                await until(lambda: runs["last"] and not here.in_flight, within=90)
                if not ordered:
                    await asyncio.sleep(LEASE)
            async with member.subscribe(
                topic, group="g", handler=handle, ordered=ordered, ack_deadline=LEASE
            ):
                await broker.publish(topic, "end", key="k")
                await until(lambda: runs["end"], within=90)
        assert set(runs) == {"before", "slow", "after", "last", "end"}
        # A message that had only been fetched may have been handled by another source.
        assert (runs["before"], runs["slow"]) == (1, 1), runs

    @pytest.mark.parametrize("first", [1.0, 30.0], ids=["shorter", "longer"])
    async def test_members_with_other_deadlines_take_no_message_of_a_live_one(
        self, broker: Broker, url: str, topic: str, first: float
    ) -> None:
        begun: list[tuple[str, int]] = []

        async def handle(body: str, delivery: Delivery) -> None:
            begun.append((body, delivery.attempt))
            await asyncio.sleep(4)

        await broker.publish(topic, "before")
        async with connect(url) as other:
            here = broker.subscribe(topic, group="g", handler=handle, ack_deadline=31 - first)
            there = other.subscribe(topic, group="g", handler=handle, ack_deadline=first)
            async with here:
                await until(lambda: len(begun) == 1)
                async with there:
                    await broker.publish(topic, "after")
                    await until(lambda: len(begun) == 2)
                    await until(lambda: here.in_flight + there.in_flight == 0)
        assert sorted(begun) == [("after", 1), ("before", 1)]
