"""The producer process: `python -m benchmarks.chaos.producer SETTINGS`.

Its journal has `attempt` before each publish, then `confirmed` or `failed`, and a `call` for every
other public function. It ends when the requested number of messages is confirmed. On SIGTERM it
completes the publishes in flight; on SIGINT it closes while they are in flight.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from anymq import Broker, Closed, Topic, TransientError, connect

from .journal import Journal, now
from .process import Settings, start

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class ProducerSettings(Settings):
    """Settings of a producer: `rate` in messages/s, `timeout` and `delay` in seconds.

    Each key belongs to one task, which publishes its messages one after the other. With `repeat`,
    a failed publish is repeated with the same id until it is confirmed.
    """

    messages: int
    keys: int = 16
    tasks: int = 16
    rate: float = 1000.0
    timeout: float = 10.0
    size: int = 64
    repeat: bool = False
    delay: tuple[float, float] | None = None
    ping: bool = False
    poison: tuple[int, ...] = ()
    """Numbers of the messages that kill their consumer."""
    seed: int = 0


class Producer:
    """The state shared by the publishing tasks."""

    def __init__(self, settings: ProducerSettings, journal: Journal, broker: Broker) -> None:
        self.settings = settings
        self.journal = journal
        self.broker = broker
        self.topic = Topic[Any](settings.topic, partitions=settings.partitions)
        self.confirmed = self.attempted = 0
        self.stopping = asyncio.Event()
        self.random = random.Random(settings.seed)

    async def run(self) -> None:
        """Publish until enough is confirmed or a signal arrives, and nothing is in flight."""
        pinging = asyncio.create_task(self._ping()) if self.settings.ping else None
        await asyncio.gather(*(self._publish(task) for task in range(self.settings.tasks)))
        if pinging is not None:
            await pinging

    async def _publish(self, task: int) -> None:
        settings = self.settings
        keys = range(task, settings.keys, settings.tasks)
        if not keys:
            return
        interval, due, number = settings.tasks / settings.rate, now(), 0
        while not self.stopping.is_set() and self.confirmed < settings.messages:
            await self._one(f"{settings.name}-k{keys[number % len(keys)]}", number)
            number += 1
            due = max(due + interval, now() - 1)
            if due > now():
                await asyncio.sleep(due - now())
        self.stopping.set()

    async def _one(self, key: str, number: int) -> None:
        settings = self.settings
        id = f"{key}.{number}"
        wait = self.random.uniform(*settings.delay) if settings.delay else None
        due = None if wait is None else time.time() + wait
        body = {"id": id, "key": key, "number": number, "due": due, "pad": "x" * settings.size}
        if self.attempted in settings.poison:
            body["poison"] = True
        self.attempted += 1
        while True:
            self.journal.note("attempt", id=id, key=key, number=number)
            started = now()
            try:
                await self.broker.publish(
                    self.topic, body, key=key, id=id, timeout=settings.timeout, delay=wait
                )
            except (TransientError, Closed) as error:
                took = now() - started
                self.journal.note(
                    "failed",
                    id=id,
                    took=took,
                    limit=settings.timeout,
                    error=type(error).__name__,
                    text=str(error),
                    cause=error.__cause__ and str(error.__cause__),
                )
                if not settings.repeat or self.stopping.is_set():
                    return
            else:
                took = now() - started
                self.journal.note("confirmed", id=id, took=took, limit=settings.timeout)
                self.confirmed += 1
                return

    async def _ping(self) -> None:
        while not self.stopping.is_set():
            await timed(self.journal, "ping", self.broker.ping(), CONNECT_TIMEOUT)
            try:
                async with asyncio.timeout(1.0):
                    await self.stopping.wait()
            except TimeoutError:
                continue


async def timed(journal: Journal, what: str, call: Awaitable[object], limit: float) -> None:
    """Await a public call; record its duration and the class of its exception."""
    started = now()
    error = None
    try:
        await call
    except TransientError as raised:
        error = type(raised).__name__
    journal.note("call", what=what, took=now() - started, limit=limit, error=error)


async def produce(settings: ProducerSettings, journal: Journal) -> None:
    """Publish until finished or a signal arrives."""
    broker = await connect(settings.url)
    producer = Producer(settings, journal, broker)
    loop = asyncio.get_running_loop()
    hurry = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, producer.stopping.set)
    loop.add_signal_handler(signal.SIGINT, hurry.set)
    journal.note("ready")
    running = asyncio.create_task(producer.run())
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((running, hurrying), return_when=asyncio.FIRST_COMPLETED)
    producer.stopping.set()
    hurrying.cancel()
    await timed(journal, "aclose", broker.aclose(), CLOSE_TIMEOUT)
    await running


if __name__ == "__main__":
    start(ProducerSettings, produce)
