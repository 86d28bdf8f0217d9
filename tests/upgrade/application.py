"""A program that runs on the earlier version of anymq.

`python application.py TASK ARGUMENTS`: the arguments are a JSON object. It says in JSON lines on
stdout how far it is, and closes when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anymq
from anymq import (
    Acknowledge,
    Broker,
    DeadLetter,
    Delivery,
    GroupInfo,
    Idempotency,
    Retry,
    Subscription,
    Topic,
)
from anymq.testing.tools import eventually, until

DELAY = 5.0
"""Seconds that delayed messages and retries wait."""
LEASE = 3.0


def say(event: str, **fields: Any) -> None:
    """Write one line, at once."""
    print(json.dumps({"event": event, **fields}), flush=True)


async def until_told_to_stop() -> None:
    """Return when stdin is closed."""
    await asyncio.to_thread(sys.stdin.read)


class Leftovers:
    """Unfinished work of every kind, each on a topic of its own named `{run}-…`, in group `g`."""

    def __init__(self, broker: Broker, run: str, open_until_the_end: AsyncExitStack) -> None:
        self._broker = broker
        self._run = run
        self._open = open_until_the_end

    async def half_a_group(self) -> list[str]:
        """Acknowledge 10 of 20 messages; return these."""
        topic = f"{self._run}-plain"
        await self._broker.publish_many(topic, [f"m{number}" for number in range(20)])
        deliveries = await self._subscribe(topic, prefetch=1)
        handled: list[str] = []
        while len(handled) < 10:
            delivery = await anext(deliveries)
            handled.append(_body(delivery))
            await delivery.ack()
        await self._settled(deliveries, left=10)
        return handled

    async def retries(self) -> dict[str, float]:
        """Fail 3 messages twice; return when each is due, by the wall clock."""
        topic = f"{self._run}-retry"
        await self._broker.publish_many(topic, ["r0", "r1", "r2"])
        deliveries = await self._subscribe(topic)
        due: dict[str, float] = {}
        while len(due) < 3:
            delivery = await anext(deliveries)
            if delivery.attempt == 1:
                await delivery.nack()
            else:
                due[_body(delivery)] = time.time() + DELAY
                await delivery.nack(DELAY)
        deliveries.pause()
        await self._settled(deliveries, left=3, waiting_for_retry=3)
        return due

    async def dead_letters(self) -> None:
        """Reject 4 messages, and drop the letter of the last."""
        topic = f"{self._run}-dead"
        await self._broker.publish_many(topic, ["d0", "d1", "d2", "d3"], headers={"tenant": "a"})
        deliveries = await self._subscribe(topic)
        for _ in range(4):
            delivery = await anext(deliveries)
            await delivery.reject(f"no {_body(delivery)}")
        letters = self._broker.admin.dead_letters(topic, "g")
        await eventually(letters.count, lambda count: count == 4)
        await letters.drop_all(where=lambda letter: letter.message.body == b"d3")
        await self._settled(deliveries, left=0)

    async def delayed(self) -> dict[str, float]:
        """Publish 3 delayed messages; return when each is due, by the wall clock."""
        topic = f"{self._run}-delayed"
        async with self._broker.subscribe(topic, group="g"):
            pass  # the group exists from now on
        due: dict[str, float] = {}
        for number in range(3):
            due[f"l{number}"] = time.time() + DELAY
            await self._broker.publish(topic, f"l{number}", delay=DELAY)
        return due

    async def half_an_ordered_group(self) -> list[str]:
        """Fail `a/2` twice, so that it waits; acknowledge 12 messages or more, and return these."""
        topic = Topic[Any](f"{self._run}-ordered", partitions=2)
        sent = [f"{key}/{number}" for number in range(6) for key in "abcd"]
        await self._broker.publish_many(topic, sent, key=_key)
        deliveries = await self._subscribe(topic, ordered=True)
        handled: list[str] = []
        failed = 0
        while len(handled) < 12 or failed < 2:
            delivery = await anext(deliveries)
            if _body(delivery) == "a/2":
                failed += 1
                await delivery.nack(0 if failed == 1 else DELAY)
            else:
                handled.append(_body(delivery))
                await delivery.ack()
        deliveries.pause()
        await self._settled(deliveries, left=len(sent) - len(handled))
        return handled

    async def half_the_effects(self, store: str) -> None:
        """Handle 5 messages idempotently, and be at work on a sixth."""
        topic = f"{self._run}-once"
        done: set[str] = set()

        async def handle(body: str) -> None:
            if body == "e5":
                await asyncio.Event().wait()
            done.add(body)

        for number in range(6):
            await self._broker.publish(topic, f"e{number}", id=f"{topic}-{number}")
        chain = [Acknowledge(), DeadLetter(), Retry(), Idempotency(store, lease=LEASE)]
        working = await self._subscribe(
            topic, handler=handle, middleware=chain, concurrency=6, drain_timeout=0.2
        )
        await until(lambda: len(done) == 5)
        await self._settled(working, left=1)

    async def _subscribe(self, topic: str | Topic[Any], **options: Any) -> Subscription:
        subscription = self._broker.subscribe(topic, group="g", ack_deadline=LEASE, **options)
        return await self._open.enter_async_context(subscription)

    async def _settled(
        self, subscription: Subscription, *, left: int, waiting_for_retry: int = 0
    ) -> None:
        """Return once the broker knows that the group has yet to settle `left` messages."""

        def lag(group: GroupInfo) -> int:
            if group.lag is not None:
                return group.lag
            # RabbitMQ tells how many messages are ready; what this process holds is added to them.
            ready = sum(partition.lag or 0 for partition in group.partitions or ())
            return ready + subscription.in_flight + waiting_for_retry

        admin = self._broker.admin
        await eventually(
            lambda: admin.describe(subscription.topic, "g"), lambda group: lag(group) == left
        )


async def leave(url: str, run: str, store: str | None) -> None:
    """Leave work of every kind behind."""
    async with anymq.connect(url) as broker, AsyncExitStack() as open_until_the_end:
        leftovers = Leftovers(broker, run, open_until_the_end)
        plain, ordered, retries, delayed, *_ = await asyncio.gather(
            leftovers.half_a_group(),
            leftovers.half_an_ordered_group(),
            leftovers.retries(),
            leftovers.delayed(),
            leftovers.dead_letters(),
            *([leftovers.half_the_effects(store)] if store else []),
        )
        say("left", plain=plain, ordered=ordered, retries=retries, delayed=delayed)
        await until_told_to_stop()


async def share(url: str, topic: str, ordered: bool, partitions: int) -> None:
    """Be a member of group `g`; the first attempt at a body that ends in 7 fails."""

    async def handle(delivery: Delivery) -> None:
        body, began = _body(delivery), time.monotonic()
        say("handling", body=body, attempt=delivery.attempt, at=began)
        await asyncio.sleep(0.005)
        if body.endswith("7") and delivery.attempt == 1:
            raise ValueError("fails at first")
        say("handled", body=body, began=began, at=time.monotonic())

    retry = Retry(attempts=5, initial=0.3, factor=1.0, jitter=False, in_place=0.0)
    async with (
        anymq.connect(url) as broker,
        broker.subscribe(
            Topic[Any](topic, partitions=partitions),
            group="g",
            ordered=ordered,
            concurrency=4,
            ack_deadline=LEASE,
            handler=handle,
            middleware=[Acknowledge(), DeadLetter(), retry],
        ),
    ):
        say("ready")
        await until_told_to_stop()


def _body(delivery: Delivery) -> str:
    return delivery.message.body.decode()


def _key(body: str) -> str:
    return body.partition("/")[0]


TASKS: dict[str, Callable[..., Awaitable[None]]] = {"leave": leave, "share": share}


async def main() -> None:
    say("started", anymq=anymq.__file__)
    await TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
    say("stopped")


if __name__ == "__main__":
    asyncio.run(main())
