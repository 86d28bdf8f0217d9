"""Fuzzing: hostile messages on a topic that ordinary groups consume.

Each message is handled, becomes a dead letter with its reason, or is reported as a duplicate. The
groups continue, the dead letters can be redriven and discarded, and closing is clean.

`ANYMQ_FUZZ_SEED` and `ANYMQ_FUZZ_COUNT` choose the messages; `make fuzz` sends 20,000. A failure
names its seed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from random import randrange

import pytest

from anymq import (
    Acknowledge,
    DeadLetter,
    DeadLetters,
    Delivery,
    Idempotency,
    Letter,
    Message,
    Retry,
    connect,
)
from anymq.broker import Broker
from anymq.consuming.subscription import Subscription
from anymq.testing.harness import random_name
from anymq.testing.tools import eventually, until
from tests.core.faulty import core_tasks
from tests.foreign.hostile import NUMBER, Hostile, Order
from tests.foreign.raw import DUPLICATE, STORED, Foreign
from tests.foreign.support import EVERY, raw

COUNT = int(os.environ.get("ANYMQ_FUZZ_COUNT", "1000"))
SEED = int(os.environ.get("ANYMQ_FUZZ_SEED", "0")) or randrange(1, 2**32)
WAIT_SECONDS = 120 + COUNT / 10
"""Seconds after which a step has failed, also on a slow machine."""
GOOD = "good"
"""The number of the last message."""
UNNUMBERED = "none"


class Reader:
    """A subscription of one kind, and the outcome of each message."""

    def __init__(self, broker: Broker, topic: str, group: str | None, *, ordered: bool) -> None:
        self.handled: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.group = group
        self.letters: DeadLetters = broker.admin.dead_letters(topic, group)
        self._broker, self._topic = broker, topic
        self.subscription: Subscription = broker.subscribe(
            topic,
            group=group,
            handler=self.handle,
            ordered=ordered,
            concurrency=8,
            middleware=[
                Acknowledge(),
                DeadLetter(),
                Retry(attempts=2, initial=0.3, in_place=0.01, jitter=False),
                Idempotency(f"memory://{random_name()}", on_duplicate=self.skip),
            ],
        )

    async def handle(self, order: Order, delivery: Delivery) -> None:
        if order.fails == "always" or (order.fails == "once" and delivery.attempt == 1):
            raise RuntimeError(f"order {order.number} fails")
        self.handled[number_of(delivery.message)] += 1

    def skip(self, delivery: Delivery) -> None:
        self.duplicates[number_of(delivery.message)] += 1

    async def settled(self) -> None:
        """Return when every message is settled."""
        await until(
            lambda: self.handled[GOOD] and not self.subscription.in_flight, within=WAIT_SECONDS
        )
        if self.group is not None:
            await eventually(
                lambda: self._broker.admin.describe(self._topic, self.group or ""),
                lambda info: info.lag in (0, None),
                within=WAIT_SECONDS,
            )

    async def check(self, expected: Counter[str]) -> list[Letter]:
        """Return the letters, once every message is accounted for."""
        deadline = time.monotonic() + WAIT_SECONDS
        while missing := self.missing(expected, letters := await self.letters.list()):
            assert time.monotonic() < deadline, f"group {self.group}: no trace of {missing}"
            await asyncio.sleep(0.5)
        for letter in letters:
            assert letter.reason, letter
            assert letter.group == self.group
            assert letter.attempts is not None
        return letters

    def missing(self, expected: Counter[str], letters: list[Letter]) -> Counter[str]:
        """Return the messages without an outcome."""
        dead = Counter(number_of(letter.message) for letter in letters)
        return expected - self.handled - self.duplicates - dead


def number_of(message: Message) -> str:
    return message.headers.get(NUMBER, UNNUMBERED)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The log lines of the test, with the warnings of the event loop."""
    caplog.set_level(logging.WARNING)
    return caplog.records


def alarming(records: list[logging.LogRecord]) -> list[str]:
    """Return the errors that are not about a failed message."""
    known = ("retries exhausted", "dead-letter topic", "failed for the last time")
    found = [
        record.getMessage()
        for record in records
        if record.levelno >= logging.ERROR or record.name == "asyncio"
    ]
    return [line for line in found if not any(word in line for word in known)]


@pytest.mark.timeout(600 + COUNT)
@pytest.mark.parametrize("backend", EVERY)
async def test_every_message_has_an_outcome(backend: str, lines: list[logging.LogRecord]) -> None:
    print(f"ANYMQ_FUZZ_SEED={SEED} ANYMQ_FUZZ_COUNT={COUNT}")
    topic = random_name()
    messages = Hostile(backend, SEED).messages(COUNT)
    async with raw(backend) as publisher, connect(publisher.url) as broker:
        await publisher.make(topic)
        await broker.admin.declare(topic)
        readers = [
            Reader(broker, topic, "g", ordered=False),
            Reader(broker, topic, "o", ordered=True),
            Reader(broker, topic, None, ordered=False),
        ]
        for reader in readers:
            await reader.subscription.__aenter__()
        outcomes = await publisher.publish(topic, messages)
        expected = accepted(messages, outcomes)
        await broker.publish(topic, Order(number=0), headers={NUMBER: GOOD})
        for reader in readers:
            await reader.settled()
            letters = await reader.check(expected)
            await operate(reader, letters)
        stored = outcomes.count(STORED) + 1
        found = [item async for item in broker.admin.browse(topic)]
        assert len(found) >= stored
        for reader in readers:
            async with asyncio.timeout(WAIT_SECONDS):
                await reader.subscription.__aexit__(None, None, None)
            assert reader.subscription.in_flight == 0
            assert reader.subscription.failed is None
    await until(lambda: not core_tasks(), within=WAIT_SECONDS)
    assert alarming(lines) == []


def accepted(messages: list[Foreign], outcomes: list[str]) -> Counter[str]:
    """Return the messages that the server has stored, by number."""
    print("refused:", Counter(outcomes).most_common(6))
    refused = [item for item in outcomes if item not in (STORED, DUPLICATE)]
    assert len(refused) < max(10, len(messages) / 10), Counter(refused).most_common(5)
    return Counter(
        UNNUMBERED if message.block is not None else dict(message.headers)[NUMBER].decode()
        for message, outcome in zip(messages, outcomes, strict=True)
        if outcome == STORED
    )


async def operate(reader: Reader, letters: list[Letter]) -> None:
    """Count, export, redrive and drop `letters`."""
    box = reader.letters
    count = len(letters)
    assert await box.count() == count
    assert len([line async for line in box.export()]) == count
    whole = [letter for letter in letters if not letter.reduced][:5]
    assert await box.redrive(*whole) == len(whole)
    await reader.settled()
    others = [letter for letter in letters if letter not in whole][:5]
    assert await box.drop(*others) == len(others)

    async def dropped() -> int:
        await box.drop_all()
        return await box.count()

    # A redriven message may fail once more.
    await eventually(dropped, lambda left: left == 0, within=WAIT_SECONDS)
