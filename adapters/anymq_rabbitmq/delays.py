"""Durable delays of any length: a ladder of queues, each of which waits for twice the one below.

A delay is a whole number of steps of 0.1 s, and its binary digits are the first 28 words of the
routing key, the highest first. On the exchange of level k a message whose k-th digit is 1 goes to
the queue of level k, where everything waits for 2^k steps, then through the queue's dead letters to
the exchange of level k - 1; one whose digit is 0 goes there at once. The last exchange delivers by
the last word, which stands for the group's queue. So every queue has one time for all of its
messages and none waits behind a longer one (as it would with a time per message), and no
message leaves a queue before the next one has confirmed it (`at-least-once`, which needs
`reject-publish`). No message meets a queue twice: the server would take it for a loop.

What nobody takes any more, as its group's queue is gone, is kept in a queue `.lost` for a week.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from typing import Any

from . import requests
from .link import Link
from .topology import bind, exists, seal, settled

STEP = 0.1
LEVELS = 28
LONGEST = (2**LEVELS - 1) * STEP
PREFIX = "anymq._delay.v1"
LOST = f"{PREFIX}.lost"
_ANY = "*."


def level_name(level: int) -> str:
    """The exchange, and the queue, of a level."""
    return f"{PREFIX}.{level:02}"


def address(queue: str, delay: float) -> tuple[int, str]:
    """The level to enter at, and the routing key, for a delay of at least `delay` seconds.

    At most `LONGEST`, which is 310 days.
    """
    steps = min(max(1, math.ceil(delay / STEP)), 2**LEVELS - 1)
    digits = ".".join(f"{steps:0{LEVELS}b}")
    return steps.bit_length() - 1, f"{digits}.{_word(queue)}"


def pattern(queue: str) -> str:
    """What leads from the last exchange to `queue`."""
    return _ANY * LEVELS + _word(queue)


def _named(queue: str, life: int) -> str:
    return f"{queue}\n{life}" if life else queue


def _word(queue: str) -> str:
    # One word, however long the name and whatever dots it has: keys are 255 bytes at most.
    return hashlib.sha256(queue.encode()).hexdigest()[:32]


class Delays:
    """Makes the ladder when it is first used on a server: from the bottom up, so that one that has
    its highest level is complete."""

    def __init__(self, link: Link, *, settle: float) -> None:
        self._link = link
        self._settle = settle
        self._building = asyncio.Lock()
        self._complete = False
        self._queues: set[str] = set()

    def forget(self) -> None:
        """Look again what is there: something was not."""
        self._complete = False
        self._queues.clear()

    async def route(self, queue: str, delay: float, *, life: int = 0) -> tuple[str, str]:
        """The exchange and routing key from which a message reaches `queue` after `delay` s.

        `life` tells a queue from the one of the same name that was deleted: what still waits for
        that does not come.
        """
        await self.prepare(queue, life=life)
        level, key = address(_named(queue, life), delay)
        return level_name(level), key

    async def prepare(self, queue: str, *, life: int = 0) -> None:
        """Return when the ladder is there and leads to `queue`."""
        name = _named(queue, life)
        if self._complete and name in self._queues:
            return
        async with self._building:
            if not self._complete:
                await self._build()
            if name not in self._queues:
                await bind(self._link, queue, PREFIX, pattern(name))
                await seal(self._link)
                self._queues.add(name)

    async def _build(self) -> None:
        if not await exists(self._link, level_name(LEVELS - 1)):
            await self._build_exit()
            for level in range(LEVELS):
                await self._build_level(level)
            await settled(self._link, self._settle)
        self._complete = True

    async def _build_exit(self) -> None:
        call = self._link.call
        week: dict[str, Any] = {
            "x-queue-type": "classic",
            "x-message-ttl": 7 * 24 * 3600 * 1000,
            "x-max-length": 100_000,
        }
        async with self._link.scratch() as channel:
            await call(requests.declare_exchange(channel, LOST, "fanout"))
            await call(channel.queue_declare(LOST, durable=True, arguments=week))
            await call(requests.bind_queue(channel, LOST, LOST))
            # Without this, messages for a queue that is gone would fill the ladder's last hop, and
            # stop it for all.
            lost: dict[str, Any] = {"alternate-exchange": LOST}
            await call(requests.declare_exchange(channel, PREFIX, "topic", lost))

    async def _build_level(self, level: int) -> None:
        call = self._link.call
        name = level_name(level)
        below = level_name(level - 1) if level else PREFIX
        skip = _ANY * (LEVELS - 1 - level)
        async with self._link.scratch() as channel:
            await call(requests.declare_exchange(channel, name, "topic"))
            await call(channel.queue_declare(name, durable=True, arguments=_waiting(level, below)))
            await call(requests.bind_queue(channel, name, name, f"{skip}1.#"))
            await call(requests.bind_exchange(channel, below, name, f"{skip}0.#"))


def _waiting(level: int, below: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        # The server's clock counts whole milliseconds: one more, never to be early.
        "x-message-ttl": int(STEP * 1000) * 2**level + 1,
        "x-dead-letter-exchange": below,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
