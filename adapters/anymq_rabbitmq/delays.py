"""Durable delays: `DelayLadder`, the queues in which messages wait, and `DelayedPublisher`.

The ladder serves delays of any length: each of its queues holds messages for twice as long as the
one below. A delay is a whole number of steps of 0.1 s. Its binary digits are the first 28 words of
the routing key, the highest first. On the exchange of level k a message whose k-th digit is 1 goes
to the queue of level k, where every message waits for 2^k steps, and from there as a dead letter to
the exchange of level k - 1. A message whose digit is 0 goes there at once. The last exchange routes
by the last word, which stands for the group's queue. So each queue has one time for all of its
messages, and no message waits behind a longer one, as it would with a time per message. No message
leaves a queue before the next one has confirmed it (`at-least-once`, which needs `reject-publish`).
No message enters a queue twice, which the server would take for a loop. A message whose group's
queue is gone is kept in the queue `.lost` for a week.

A delayed publish goes through the ladder too, aimed a little too early, into one queue for all
topics, `anymq._delay.v1.due`. A process holds it there until its due time and publishes it to its
topic as it would have been published at once: with its own routing key, through the checks of every
publish, and in the order of due times. Every process that subscribes or delays takes part. The
server lets one at a time do it (single active consumer), and the next one when that is gone. A copy
is confirmed before the original is acknowledged: a crash may repeat a message, not lose it.

The ladder does not lead straight to the topic's exchange, for three reasons. A server that has just
started would leave out a log that is not up yet. The message's key would be lost, because the
ladder routes by its own. And 32 messages that no queue takes would stop a level for all.

If no process of anymq is connected to the virtual host when a message is due, it enters its topic
with the next that connects. A message whose topic is down waits until that is up again; one whose
topic is gone is kept in the queue `.lost` for a week.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import ConnectionLost, NotFound, Record, logger, supervise

from . import messages
from .client import protocol
from .client.fetcher import Delivery, Fetcher
from .connection import Connection, QueueDown
from .groups.catalog import Catalog, CatalogEntries
from .groups.schema import EVERYTHING, GROUP_ARGUMENTS, SINGLE_ACTIVE, log_of
from .publisher import Outgoing, Publisher

STEP = 0.1
"""Seconds of the shortest delay, of which every delay is a multiple."""
LEVELS = 28
LONGEST = (2**LEVELS - 1) * STEP
"""Seconds of the longest delay: 310 days."""
PREFIX = "anymq._delay.v1"
LOST = f"{PREFIX}.lost"
_ANY = "*."

QUEUE = f"{PREFIX}.due"
HEADER = "anymq-due"
ARGUMENTS: dict[str, Any] = {**GROUP_ARGUMENTS, SINGLE_ACTIVE: True}
LEAD = 0.6
"""Seconds by which the ladder is aimed too early: each of its hops takes some milliseconds."""
LONGEST_HOLD = LEAD + 2.0
"""Seconds before its due time from which on a message is held. One that arrives earlier goes
through the ladder again: it was too long for one round, or clocks disagree."""
WINDOW = 2000
"""Messages held at a time."""
RECEIVE_TIMEOUT = 2.0
"""Seconds that one read waits for messages."""
POSTPONED = 2.0
"""Seconds until a message is tried again whose topic does not take it."""
CLOSE_TIMEOUT = 2.0
"""Seconds that closing waits for a running publish, and then for the end of the task."""
RESTART_DELAY = 1.0
"""Seconds until the task starts again after an error."""

log = logger("anymq.rabbitmq")


def level_name(level: int) -> str:
    """Return the name of the exchange and the queue of a level."""
    return f"{PREFIX}.{level:02}"


def address(queue: str, delay: float) -> tuple[int, str]:
    """Return the first level, and the routing key, for a delay of at least `delay` seconds.

    A longer delay than `LONGEST` becomes that.
    """
    steps = min(max(1, math.ceil(delay / STEP)), 2**LEVELS - 1)
    digits = ".".join(f"{steps:0{LEVELS}b}")
    return steps.bit_length() - 1, f"{digits}.{_word(queue)}"


def pattern(queue: str) -> str:
    """Return the binding pattern from the last exchange to `queue`."""
    return _ANY * LEVELS + _word(queue)


def _word(queue: str) -> str:
    # One word, whatever the name's length and dots: routing keys are 255 bytes at most.
    return hashlib.sha256(queue.encode()).hexdigest()[:32]


def _name_of(queue: str, generation: int) -> str:
    return f"{queue}\n{generation}" if generation else queue


class DelayLadder:
    """Makes the ladder at its first use on a server, and routes messages through it.

    It is made from the bottom up, so a ladder that has its highest level is complete.
    """

    def __init__(self, connection: Connection, *, settle: float) -> None:
        self._connection = connection
        self._settle = settle
        self._building = asyncio.Lock()
        self._complete = False
        self._queues: set[str] = set()

    def forget(self) -> None:
        """Check again which queues exist, because one was absent."""
        self._complete = False
        self._queues.clear()

    async def route(self, queue: str, delay: float, *, generation: int = 0) -> tuple[str, str]:
        """Return the exchange and routing key that lead to `queue` after `delay` seconds.

        `generation` tells a queue from an earlier one of the same name that was deleted: messages
        that still wait for that one do not come.
        """
        await self.prepare(queue, generation=generation)
        level, key = address(_name_of(queue, generation), delay)
        return level_name(level), key

    async def prepare(self, queue: str, *, generation: int = 0) -> None:
        """Return when the ladder exists and leads to `queue`."""
        name = _name_of(queue, generation)
        if self._complete and name in self._queues:
            return
        async with self._building:
            if not self._complete:
                await self._build()
            if name not in self._queues:
                await protocol.bind(self._connection, queue, PREFIX, pattern(name))
                await protocol.fsync_metadata(self._connection)
                self._queues.add(name)

    async def _build(self) -> None:
        if not await protocol.queue_exists(self._connection, level_name(LEVELS - 1)):
            await self._build_exit()
            for level in range(LEVELS):
                await self._build_level(level)
            await protocol.wait_until_durable(self._connection, self._settle)
        self._complete = True

    async def _build_exit(self) -> None:
        call = self._connection.call
        week: dict[str, Any] = {
            "x-queue-type": "classic",
            "x-message-ttl": 7 * 24 * 3600 * 1000,
            "x-max-length": 100_000,
        }
        async with self._connection.request_channel() as channel:
            await call(protocol.declare_exchange(channel, LOST, "fanout"))
            await call(channel.queue_declare(LOST, durable=True, arguments=week))
            await call(protocol.bind_queue(channel, LOST, LOST))
            # Without this, messages for a deleted queue would fill the ladder's last hop, and stop
            # it for all.
            lost: dict[str, Any] = {"alternate-exchange": LOST}
            await call(protocol.declare_exchange(channel, PREFIX, "topic", lost))

    async def _build_level(self, level: int) -> None:
        call = self._connection.call
        name = level_name(level)
        below = level_name(level - 1) if level else PREFIX
        skip = _ANY * (LEVELS - 1 - level)
        async with self._connection.request_channel() as channel:
            await call(protocol.declare_exchange(channel, name, "topic"))
            arguments = _level_arguments(level, below)
            await call(channel.queue_declare(name, durable=True, arguments=arguments))
            await call(protocol.bind_queue(channel, name, name, f"{skip}1.#"))
            await call(protocol.bind_exchange(channel, below, name, f"{skip}0.#"))


def _level_arguments(level: int, below: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        # The server's clock counts whole milliseconds: one more, so that no message is early.
        "x-message-ttl": int(STEP * 1000) * 2**level + 1,
        "x-dead-letter-exchange": below,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


@dataclass(frozen=True, slots=True)
class Destination:
    """The topic that a delayed message enters; `log` is None for an operator's exchange.

    `at` is the due time. `sent`, in nanoseconds, orders messages with the same due time.
    """

    at: float
    sent: int
    exchange: str
    key: str
    log: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> Destination | None:
        """Read what `header` wrote.

        None for a message that anymq did not delay, and for one of another program that names no
        topic.
        """
        try:
            at, sent, exchange, key, log = json.loads(messages.header(delivery, HEADER) or "")
            to = cls(float(at), int(sent), str(exchange), str(key), log and str(log))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None
        return to if to.is_topic else None

    @property
    def is_topic(self) -> bool:
        """Whether it can be a topic's exchange and log, or a queue that a topic is mapped to."""
        name = self.exchange or self.key
        if not name or "._" in name or not math.isfinite(self.at):
            return False
        return self.log is None or self.log == log_of(self.exchange)

    def header(self) -> dict[str, str]:
        """Return the header that carries it through the ladder."""
        return {HEADER: json.dumps([self.at, self.sent, self.exchange, self.key, self.log])}


@dataclass(order=True, slots=True)
class _Held:
    at: float
    sent: int
    number: int
    delivery: Delivery = field(compare=False)
    to: Destination = field(compare=False)


class DelayedPublisher:
    """This process's part in publishing delayed messages at their due times."""

    def __init__(
        self,
        connection: Connection,
        publishing: Connection,
        *,
        ladder: DelayLadder,
        catalog: Catalog,
        settle: float,
        timeout: float,
    ) -> None:
        """`publishing` is the connection that publishes, `timeout` bounds each confirmation."""
        self._connection = connection
        self._ladder = ladder
        self._catalog = catalog
        self._settle = settle
        self._prepared = False
        self._making = asyncio.Lock()
        self._entering = asyncio.Lock()
        """Held from a publish to its acknowledgement, because a close in between repeats it."""
        # On a channel of its own: a refused message closes the channel.
        self._publisher = Publisher(publishing, timeout=timeout, check=self._check)
        self._logs: dict[str, str | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def prepare(self) -> None:
        """Take part, and return when delayed messages can be published."""
        if self._prepared:
            return
        await self.take_part()
        await self._ladder.prepare(QUEUE)
        self._prepared = True

    async def take_part(self) -> None:
        """Publish due messages from now on, whenever this process is the active consumer.

        Returns when the queue can be relied on: if the server is killed within a second of making
        it, the queue stays dead until an operator deletes it.
        """
        if self._task is None:
            await self._make_queue()
        if self._task is None and not self._closed:  # Either may have changed meanwhile.
            self._task = supervise(self._run(), name="anymq-delayed")

    def forget(self) -> None:
        """Check again which queues exist, because one was absent."""
        self._prepared = False
        self._ladder.forget()

    def outgoing(self, record: Record, to: Destination) -> Outgoing:
        """Return the message that carries `record` through its delay; call `prepare` before."""
        exchange, key = _ladder_route(to.at)
        delayed = record.with_headers(to.header())
        return messages.outgoing(delayed, exchange=exchange, routing_key=key)

    async def aclose(self) -> None:
        """Leave it to other processes. Held messages return to the queue."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._entering.acquire(), CLOSE_TIMEOUT)
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSE_TIMEOUT)

    async def _make_queue(self) -> None:
        async with self._making:
            if not await protocol.queue_exists(self._connection, QUEUE):
                await protocol.ensure_queue(self._connection, QUEUE, ARGUMENTS)
                await protocol.wait_until_durable(self._connection, self._settle)

    async def _run(self) -> None:
        while True:
            try:
                await self._make_queue()
                entries = await self._catalog.read()
                updates = await self._catalog.follow(entries)
                due = await Fetcher.open(self._connection, QUEUE, prefetch=WINDOW)
                try:
                    await self._serve(due, updates, entries)
                finally:
                    await asyncio.gather(due.aclose(), updates.aclose())
            except Exception as error:
                # No caller waits for this task, so it repeats its work itself.
                log.debug("publishing delayed messages failed: %r; retrying", error)
                await asyncio.sleep(RESTART_DELAY)

    async def _serve(self, due: Fetcher, updates: Fetcher, entries: CatalogEntries) -> None:
        held: list[_Held] = []
        numbers = itertools.count()
        wait = RECEIVE_TIMEOUT
        while True:
            for delivery in await due.take(WINDOW, wait):
                if to := Destination.of(delivery):
                    heapq.heappush(held, _Held(to.at, to.sent, next(numbers), delivery, to))
                else:
                    await self._move(due, [delivery], LOST, "")
            now = time.time()
            ready: list[_Held] = []
            while held and held[0].at <= now:
                ready.append(heapq.heappop(held))
            while held and (last := max(held)).at > now + LONGEST_HOLD:
                held.remove(last)
                heapq.heapify(held)
                await self._move(due, [last.delivery], *_ladder_route(last.at))
            while found := await updates.take(WINDOW, 0):
                entries.learn([one for one in found if messages.marker(one) is None])
                await updates.ack([one.tag for one in found])
            for one in await self._enter(due, await self._without_purged(due, ready, entries)):
                heapq.heappush(held, one)
            wait = RECEIVE_TIMEOUT
            if held:
                wait = min(wait, max(0.0, held[0].at - time.time()))

    async def _without_purged(
        self, due: Fetcher, ready: Sequence[_Held], entries: CatalogEntries
    ) -> list[_Held]:
        """Acknowledge messages delayed before a purge of their topic; return the others."""
        purged = [one for one in ready if one.sent <= entries.purged.get(one.to.exchange, -1)]
        await due.ack([one.delivery.tag for one in purged])
        return [one for one in ready if one not in purged]

    async def _enter(self, due: Fetcher, ready: Sequence[_Held]) -> list[_Held]:
        """Publish messages to their topics; return those to try again at once."""
        if not ready:
            return []
        async with self._entering:
            return await self._publish(due, ready)

    async def _publish(self, due: Fetcher, ready: Sequence[_Held]) -> list[_Held]:
        self._logs.update({one.to.exchange: one.to.log for one in ready})
        outcomes = await self._publisher.publish([_entering(one) for one in ready])
        done: list[Delivery] = []
        absent: list[_Held] = []
        postponed: list[Delivery] = []
        repeated: list[_Held] = []
        for one, outcome in zip(ready, outcomes, strict=True):
            match outcome:
                case None:
                    done.append(one.delivery)
                case NotFound() | ChannelNotFoundEntity():
                    absent.append(one)
                case ConnectionLost():
                    repeated.append(one)
                case _:
                    postponed.append(one.delivery)
        await due.ack([delivery.tag for delivery in done])
        missing = {one.to.exchange: one.to for one in absent}
        gone = {exchange for exchange, to in missing.items() if await self._is_gone(to)}
        lost = [one.delivery for one in absent if one.to.exchange in gone]
        postponed += [one.delivery for one in absent if one.to.exchange not in gone]
        await self._move(due, lost, LOST, "")
        await self._move(due, postponed, *_ladder_route(time.time() + POSTPONED))
        return repeated

    async def _is_gone(self, to: Destination) -> bool:
        """Whether the topic does not exist any more.

        If it exists and takes no message, its log is not bound: this binds it.
        """
        if to.log is None:
            return True
        try:
            await protocol.inspect_queue(self._connection, to.log)
            await protocol.bind(self._connection, to.log, to.exchange, EVERYTHING)
        except ChannelNotFoundEntity:
            return True
        except QueueDown:
            pass
        return False

    async def _move(
        self, due: Fetcher, deliveries: Sequence[Delivery], exchange: str, key: str
    ) -> None:
        copies = [messages.forward(one, exchange, key) for one in deliveries]
        await self._publisher.publish_all(copies)
        await due.ack([delivery.tag for delivery in deliveries])

    async def _check(self, exchange: str) -> None:
        """Raise while an exchange is not ready for publishes."""
        if exchange not in self._logs:
            return
        if log := self._logs[exchange]:
            await protocol.inspect_queue(self._connection, log)
        else:
            await protocol.require_exchange(self._connection, exchange)


def _ladder_route(at: float) -> tuple[str, str]:
    """Return the exchange and routing key that lead to the queue shortly before `at`."""
    delay = at - time.time() - LEAD - STEP
    if delay <= 0:
        return "", QUEUE
    level, key = address(QUEUE, delay)
    return level_name(level), key


def _entering(held: _Held) -> Outgoing:
    to = held.to
    return messages.forward(held.delivery, to.exchange, to.key, entering=HEADER)
