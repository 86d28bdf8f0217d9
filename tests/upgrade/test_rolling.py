"""Members of the earlier version and of this one share a group while an upgrade goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import anymq
from anymq import Acknowledge, DeadLetter, Delivery, Retry, Topic
from anymq.testing.history import History
from anymq.testing.tools import until
from tests.upgrade.earlier import Earlier, stop

LEASE = 3.0
PARTITIONS = 12
"""Enough for each member to get some of them by chance: RabbitMQ spreads them by priorities."""
KEYS = [f"k{number}" for number in range(12)]
PATIENCE = 90.0

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("ordered", [False, True], ids=["plain", "ordered"])
async def test_members_of_both_versions_share_a_group(
    earlier: Earlier, url: str, run: str, ordered: bool
) -> None:
    topic = Topic[Any](run, partitions=PARTITIONS)
    messages = (f"{key}/{number}" for number in range(10_000) for key in KEYS)
    sent: list[str] = []
    history = History(
        failing={f"{key}/{number}": 1 for key in KEYS for number in range(7, 999, 10)}
    )
    noting = history.handler("this version", pause=lambda: 0.005)
    here: list[str] = []
    retry = Retry(attempts=5, initial=0.3, factor=1.0, jitter=False, in_place=0.0)
    async with (
        anymq.connect(url) as broker,
        earlier.run(
            "share", url=url, topic=run, ordered=ordered, partitions=PARTITIONS
        ) as application,
    ):

        async def publish(count: int) -> None:
            batch = [next(messages) for _ in range(count * len(KEYS))]
            await broker.publish_many(topic, batch, key=lambda body: body.partition("/")[0])
            sent.extend(batch)

        async def handle(delivery: Delivery) -> None:
            await noting(delivery)
            here.append(delivery.message.body.decode())

        await application.hear("ready")
        there = application.listen("handled")
        await publish(2)
        await until(lambda: len(there) >= 2 * len(KEYS), within=PATIENCE)
        async with broker.subscribe(
            topic,
            group="g",
            ordered=ordered,
            concurrency=4,
            ack_deadline=LEASE,
            handler=handle,
            middleware=[Acknowledge(), DeadLetter(), retry],
        ):
            before = len(there)
            async with asyncio.timeout(PATIENCE):
                while len(there) < before + 50 or len(here) < 50 or len(sent) < 400:
                    if len(sent) - len(there) - len(here) < 100:
                        await publish(1)
                    await asyncio.sleep(0.05)
            await stop(application)
            await publish(2)
            history.hear("the earlier version", application.said)
            await until(lambda: history.finished >= set(sent), within=PATIENCE)
    failed = {attempts for body, attempts in history.started if body.endswith("7")}
    assert failed <= {1, 2}
    if ordered:
        history.check(sent)
    else:
        assert sorted([*here, *(event["body"] for event in there)]) == sorted(sent)
