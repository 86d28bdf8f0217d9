"""The other process of a test: `python -m anymq.testing.worker TASK ARGUMENTS`.

It prints events as JSON lines on stdout. When its task is finished it waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..app import App
from ..connect import connect
from ..consuming.delivery import Delivery
from ..consuming.member_settler import START_NOTED_AFTER
from ..message import Message, Receipt
from ..middleware import Acknowledge, DeadLetter, Handler, Idempotency, Publish, Retry
from ..topic import Topic


def report(event: str, **fields: Any) -> None:
    """Print one event at once."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def publish(url: str, topic: str, count: int, delay: float | None = None) -> None:
    """Publish `count` messages with four tasks, and report each once it is confirmed."""
    async with connect(url) as broker:

        async def some(first: int) -> None:
            for number in range(first, count, 4):
                await broker.publish(topic, str(number), delay=delay)
                report("published", body=str(number))

        await asyncio.gather(*(some(first) for first in range(4)))
        report("done")
        await asyncio.Event().wait()


async def take(
    url: str, topic: str, group: str, count: int, ack: list[str], window: float, deadline: float
) -> None:
    """Take `count` messages, ack those in `ack` in reverse order, and hold the rest."""
    async with connect(url) as broker:
        subscription = broker.subscribe(topic, group=group, prefetch=count, ack_deadline=deadline)
        async with subscription:
            held = [await anext(subscription) for _ in range(count)]
            for delivery in reversed(held):
                if delivery.message.body.decode() in ack:
                    await delivery.ack()
            # A delivery held for some time counts as started.
            await asyncio.sleep(max(window, 8 * START_NOTED_AFTER))
            report("holding", bodies=[delivery.message.body.decode() for delivery in held])
            await asyncio.Event().wait()


async def share(url: str, topic: str, group: str, concurrency: int = 2) -> None:
    """Handle messages, and report each."""
    async with connect(url) as broker:

        async def handle(body: str) -> None:
            await asyncio.sleep(0.02)
            report("handled", body=body)

        async with broker.subscribe(
            topic, group=group, handler=handle, concurrency=concurrency, prefetch=concurrency
        ):
            report("ready")
            await asyncio.Event().wait()


async def lanes(
    url: str,
    topic: str,
    group: str,
    partitions: int,
    deadline: float,
    failing: str = "",
    wait: float = 0.2,
) -> None:
    """Handle messages of an ordered group, and report the start and end of each.

    The body `failing` always fails, and is retried after `wait` seconds.
    """
    async with connect(url) as broker:

        async def handle(delivery: Delivery) -> None:
            body, began = delivery.message.body.decode(), time.monotonic()
            report("handling", body=body, attempt=delivery.attempt, at=began)
            await asyncio.sleep(0.005)
            if body == failing:
                raise ValueError(f"{body} fails as planned")
            report("handled", body=body, began=began, at=time.monotonic())

        retry = Retry(attempts=1000, initial=wait, factor=1.0, jitter=False, in_place=0.0)
        async with broker.subscribe(
            Topic(topic, partitions=partitions),
            group=group,
            ordered=True,
            concurrency=4,
            ack_deadline=deadline,
            handler=handle,
            middleware=[Acknowledge(), DeadLetter(), retry],
        ):
            report("ready")
            await asyncio.Event().wait()


async def blocking(url: str, topic: str, group: str, ordered: bool, deadline: float) -> None:
    """Handle many buffered messages without ever yielding to the event loop, and report each."""
    async with connect(url) as broker:

        async def handle(body: str) -> None:
            report("handling", body=body)
            time.sleep(0.05)  # noqa: ASYNC251

        async with broker.subscribe(
            topic, group=group, handler=handle, ordered=ordered, ack_deadline=deadline, prefetch=100
        ):
            await asyncio.Event().wait()


async def wrong_clock(url: str, topic: str, group: str, step: float, deadline: float) -> None:
    """Handle messages with a wall clock wrong by `step` seconds, and never finish "held there"."""
    time.time = lambda: time.time_ns() / 1e9 + step
    async with connect(url) as broker:

        async def handle(body: str) -> None:
            report("handling", body=body)
            if body == "held there":
                await asyncio.Event().wait()

        async with broker.subscribe(
            topic, group=group, handler=handle, ack_deadline=deadline, concurrency=2, prefetch=2
        ):
            report("ready")
            await asyncio.Event().wait()


async def ask(url: str, topic: str) -> None:
    """Complete one request, then hang in another."""
    async with connect(url) as broker:
        await broker.request(topic, {"number": 3}, timeout=30)
        report("answered")
        await broker.request(f"{topic}.unread", b"", timeout=600)


async def poison(
    url: str,
    topic: str,
    group: str,
    marker: str | None,
    attempts: int,
    prefetch: int | None = None,
    ordered: bool = False,
) -> None:
    """Kill this process with SIGKILL in the handler of every message "poison"."""
    app = App(url)

    @app.subscriber(
        topic,
        group=group,
        retry=Retry(attempts=attempts, marker=marker),
        ack_deadline=2,
        prefetch=prefetch,
        ordered=ordered,
    )
    async def handle(body: str, delivery: Delivery) -> None:
        report("handling", body=body, attempt=delivery.attempt)
        if body == "poison":
            os.kill(os.getpid(), signal.SIGKILL)

    async with app:
        report("ready")
        await asyncio.Event().wait()


async def result(url: str, topic: str) -> None:
    """Publish what a handler returns, and hang before its message is acknowledged."""

    def hang(publish: Publish) -> Publish:
        async def hanging(message: Message) -> Receipt:
            await publish(message)
            report("published")
            await asyncio.Event().wait()
            raise AssertionError

        return hanging

    app = App(url, publish_middleware=[hang])

    @app.subscriber(topic, group="g", to=f"{topic}.out", ack_deadline=2)
    async def handle(body: str) -> str:
        return body

    async with app:
        await asyncio.Event().wait()


async def effect(url: str, topic: str, group: str, store: str, file: str, die: bool) -> None:
    """Handle idempotently, with a line in `file` as the effect; `die` between effect and ack."""
    app = App(url)

    def crash(handler: Handler) -> Handler:
        async def crashing(delivery: Delivery) -> None:
            await handler(delivery)
            report("handled")
            if die:
                os.kill(os.getpid(), signal.SIGKILL)

        return crashing

    class Crash(Idempotency):
        """The idempotent chain, with a crash immediately outside it."""

        def __call__(self, handler: Handler) -> Handler:
            return crash(super().__call__(handler))

    @app.subscriber(topic, group=group, idempotency=Crash(store), ack_deadline=2)
    async def handle(body: str) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{body}\n".encode())
        os.fsync(descriptor)
        os.close(descriptor)

    async with app:
        report("ready")
        await asyncio.Event().wait()


TASKS: dict[str, Callable[..., Awaitable[None]]] = {
    "publish": publish,
    "take": take,
    "share": share,
    "lanes": lanes,
    "effect": effect,
    "blocking": blocking,
    "wrong_clock": wrong_clock,
    "ask": ask,
    "poison": poison,
    "result": result,
}


async def _main() -> None:
    await TASKS[sys.argv[1]](**json.loads(sys.argv[2]))


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(_main())
