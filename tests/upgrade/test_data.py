"""What the earlier version left behind, whether it stopped or was killed, is gone on with."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import anymq
from anymq import Acknowledge, Broker, DeadLetter, Idempotency, Middleware, Retry, StateError, Topic
from anymq.testing.tools import bodies, silent, take, take_acked, until
from tests.upgrade.earlier import Earlier, stop

LEASE = 3.0
# Seconds until what a killed process held, or what was delayed, has been delivered.
PATIENCE = 90.0

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("ending", ["stopped", "killed"])
async def test_this_version_goes_on_where_the_earlier_one_ended(
    earlier: Earlier, backend: str, url: str, run: str, ending: str, tmp_path: Path
) -> None:
    store = {"sqlite": f"sqlite:///{tmp_path}/seen.db", "redis": url}.get(backend)
    async with earlier.run("leave", url=url, run=run, store=store) as application:
        left = await application.hear("left", within=PATIENCE)
        await (stop(application) if ending == "stopped" else application.kill())
    async with anymq.connect(url) as broker, asyncio.TaskGroup() as checks:
        rest = Rest(broker, run, left, killed=ending == "killed")
        checks.create_task(rest.of_the_group())
        checks.create_task(rest.of_the_ordered_group())
        checks.create_task(rest.of_the_retries())
        checks.create_task(rest.of_the_dead_letters())
        checks.create_task(rest.of_the_delayed())
        if store is not None:
            checks.create_task(rest.of_the_effects(store))


class Rest:
    """What this version must find of everything that `application.Leftovers` left."""

    def __init__(self, broker: Broker, run: str, left: dict[str, Any], *, killed: bool) -> None:
        self._broker = broker
        self._run = run
        self._left = left
        self._killed = killed

    async def of_the_group(self) -> None:
        """The messages that were not acknowledged, and no others."""
        expected = {f"m{number}" for number in range(20)} - set(self._left["plain"])
        async with self._subscribe("plain") as deliveries:
            taken = await take_acked(deliveries, 10, within=PATIENCE)
            assert set(bodies(taken)) == expected
            # The crash of a member may count as an attempt at the one message that it held.
            again = [delivery for delivery in taken if delivery.attempt != 1]
            assert len(again) <= (1 if self._killed else 0)
            await silent(deliveries, 0.5)

    async def of_the_ordered_group(self) -> None:
        """The messages that were not acknowledged, in the order of each key, with the attempts."""
        lanes: dict[str, list[str]] = defaultdict(list)
        for number in range(6):
            for key in "abcd":
                if (body := f"{key}/{number}") not in self._left["ordered"]:
                    lanes[key].append(body)
        topic = Topic[Any](f"{self._run}-ordered", partitions=2)
        async with self._broker.subscribe(
            topic, group="g", ordered=True, ack_deadline=LEASE
        ) as deliveries:
            taken = await take_acked(deliveries, sum(map(len, lanes.values())), within=PATIENCE)
            await silent(deliveries, 0.5)
        for key, lane in lanes.items():
            assert [body for body in bodies(taken) if body.startswith(key)] == lane
        (failed,) = (delivery for delivery in taken if delivery.message.body == b"a/2")
        attempts = 3 if self._broker.capabilities.ordered_attempts else 1
        assert failed.attempt == attempts or (self._killed and failed.attempt > attempts)

    async def of_the_retries(self) -> None:
        """Each message at its third attempt, not before its time."""
        due = self._left["retries"]
        async with self._subscribe("retry") as deliveries:
            for _ in range(len(due)):
                (delivery,) = await take(deliveries, 1, within=PATIENCE)
                assert time.time() >= due.pop(delivery.message.body.decode())
                assert delivery.attempt == 3
                await delivery.ack()
            await silent(deliveries, 0.5)

    async def of_the_dead_letters(self) -> None:
        """The letters that were not dropped, which can be redriven."""
        letters = self._broker.admin.dead_letters(f"{self._run}-dead", "g")
        listed = await letters.list()
        assert sorted((letter.message.body, letter.reason) for letter in listed) == [
            (f"d{number}".encode(), f"no d{number}") for number in range(3)
        ]
        assert {(letter.attempts, letter.message.headers["tenant"]) for letter in listed} == {
            (1, "a")
        }
        assert await letters.redrive_all() == 3
        assert await letters.list() == []
        async with self._subscribe("dead") as deliveries:
            taken = await take_acked(deliveries, 3, within=PATIENCE)
            assert sorted(bodies(taken)) == ["d0", "d1", "d2"]
            await silent(deliveries, 0.5)

    async def of_the_delayed(self) -> None:
        """Each message once, not before its time."""
        due = self._left["delayed"]
        async with self._subscribe("delayed") as deliveries:
            for _ in range(len(due)):
                (delivery,) = await take_acked(deliveries, 1, within=PATIENCE)
                assert time.time() >= due.pop(delivery.message.body.decode())
                assert delivery.attempt == 1
            await silent(deliveries, 0.5)

    async def of_the_effects(self, store: str) -> None:
        """The effect that was not completed, alone; the others are known as duplicates."""
        topic = f"{self._run}-once"
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._broker.admin.seek(topic, "g", to="earliest")
                    break
                except StateError:  # a killed member counts as live for some seconds
                    await asyncio.sleep(0.2)
        effects, duplicates = list[str](), list[str]()

        async def handle(body: str) -> None:
            effects.append(body)

        once = Idempotency(
            store, lease=LEASE, on_duplicate=lambda it: duplicates.extend(bodies([it]))
        )
        chain: list[Middleware] = [Acknowledge(), DeadLetter(), Retry(), once]
        async with self._broker.subscribe(topic, group="g", handler=handle, middleware=chain):
            await until(lambda: len(effects) + len(duplicates) >= 6, within=PATIENCE)
        assert effects == ["e5"]
        assert sorted(duplicates) == ["e0", "e1", "e2", "e3", "e4"]

    def _subscribe(self, kind: str) -> anymq.Subscription:
        return self._broker.subscribe(f"{self._run}-{kind}", group="g", ack_deadline=LEASE)
