"""Delayed publishes: durable from the first moment on, in their topic on the very millisecond.

A delayed message goes through the ladder of `delays`, aimed a little too early, into one queue for
all topics, `anymq._delay.v1.due`. There somebody holds it until its time and publishes it to its
topic as it would have been published at once: with its own routing key, through the checks that
every publish passes, and in the order of due times. Everyone who subscribes or delays takes part;
the server lets one at a time do it (single active consumer), and the next one when that is gone.
A copy is confirmed before the original is acknowledged: a crash may repeat a message, not lose it.

Why not straight from the ladder into the topic's exchange: a server that has just started would
leave out a log that is not up yet, a message's key is lost on the way (the ladder routes by its
own), and 32 messages that find no queue would stop a level of the ladder for everyone.

What is due while no process of anymq is connected to the virtual host enters its topic with the
next one. What is due for a topic that is down stays out until that is up again; for one that is
gone it is kept in the queue `.lost` for a week.
"""

from __future__ import annotations

import asyncio
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

from . import convert, topology
from .consumer import Consumer, Delivery
from .delays import LOST, PREFIX, STEP, Delays, address, level_name
from .link import Link, QueueDown
from .names import Known, Names
from .publisher import Outgoing, Publisher

QUEUE = f"{PREFIX}.due"
HEADER = "anymq-due"
ARGUMENTS: dict[str, Any] = {**topology.GROUP_ARGUMENTS, "x-single-active-consumer": True}
# How much too early the ladder is aimed: its hops take some milliseconds each.
LEAD = 0.6
# What is further away than this when it arrives goes through the ladder again: it was too long for
# one round, or clocks disagree.
HOLD = LEAD + 2.0
WINDOW = 2000
PATIENCE = 2.0
PAUSE = 1.0

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a message goes when it is due; `log` is None for an exchange of the operator's.

    `sent`, in nanoseconds, puts messages that are due at the same time into order.
    """

    at: float
    sent: int
    exchange: str
    key: str
    log: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> Destination | None:
        """What `header` wrote; None for a message that nobody delayed, or that another program
        wants to have published where no topic is."""
        try:
            at, sent, exchange, key, log = json.loads(convert.header(delivery, HEADER) or "")
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
        return self.log is None or self.log == topology.log_of(self.exchange)

    def header(self) -> dict[str, str]:
        """The header that carries it through the ladder."""
        return {HEADER: json.dumps([self.at, self.sent, self.exchange, self.key, self.log])}


@dataclass(order=True, slots=True)
class _Held:
    at: float
    sent: int
    number: int
    delivery: Delivery = field(compare=False)
    to: Destination = field(compare=False)


class Due:
    """This process's part in delayed publishes."""

    def __init__(
        self,
        link: Link,
        publishing: Link,
        delays: Delays,
        names: Names,
        *,
        settle: float,
        timeout: float,
    ) -> None:
        self._names = names
        self._link = link
        self._delays = delays
        self._settle = settle
        self._prepared = False
        self._making = asyncio.Lock()
        self._entering = asyncio.Lock()
        """Held from a publish to its acknowledgement: to leave in between would repeat it."""
        # On a channel of its own: what is refused here closes nobody else's.
        self._publisher = Publisher(publishing, timeout=timeout, check=self._check)
        self._logs: dict[str, str | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def prepare(self) -> None:
        """Return when delayed messages can be published; take part from now on."""
        if self._prepared:
            return
        await self.take_part()
        await self._delays.prepare(QUEUE)
        self._prepared = True

    async def take_part(self) -> None:
        """Publish what is due from now on, should it be this process's turn.

        Returns when the queue is one to rely on: a server that is killed within a second of making
        it would leave it dead, until somebody deletes it.
        """
        if self._task is None:
            await self._make_queue()
        if self._task is None and not self._closed:  # By now somebody may have done either.
            self._task = supervise(self._run(), name="anymq-due")

    async def _make_queue(self) -> None:
        async with self._making:
            if not await topology.exists(self._link, QUEUE):
                await topology.ensure_queue(self._link, QUEUE, ARGUMENTS)
                await topology.settled(self._link, self._settle)

    def forget(self) -> None:
        """Look again what is there: something was not."""
        self._prepared = False
        self._delays.forget()

    def outgoing(self, record: Record, to: Destination) -> Outgoing:
        """The message that carries `record` through the delay; after `prepare`."""
        exchange, key = _way(to.at)
        delayed = record.with_headers(to.header())
        return convert.outgoing(delayed, exchange=exchange, routing_key=key)

    async def aclose(self) -> None:
        """Leave it to the others. What is held goes back to the queue."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._entering.acquire(), PATIENCE)
            task.cancel()
            await asyncio.wait((task,), timeout=PATIENCE)

    async def _run(self) -> None:
        while True:
            try:
                await self._make_queue()
                known = await self._names.read()
                names = await self._names.follow(known)
                consumer = await Consumer.open(self._link, QUEUE, prefetch=WINDOW)
                try:
                    await self._serve(consumer, names, known)
                finally:
                    await asyncio.gather(consumer.aclose(), names.aclose())
            except Exception as error:
                # Nobody waits for this job, so nobody else can repeat it.
                _log.debug("publishing what is due: %r", error)
                await asyncio.sleep(PAUSE)

    async def _serve(self, consumer: Consumer, names: Consumer, known: Known) -> None:
        held: list[_Held] = []
        numbers = itertools.count()
        wait = PATIENCE
        while True:
            for delivery in await consumer.take(WINDOW, wait):
                if to := Destination.of(delivery):
                    heapq.heappush(held, _Held(to.at, to.sent, next(numbers), delivery, to))
                else:
                    await self._move(consumer, [delivery], LOST, "")
            now = time.time()
            ready: list[_Held] = []
            while held and held[0].at <= now:
                ready.append(heapq.heappop(held))
            while held and (last := max(held)).at > now + HOLD:
                held.remove(last)
                heapq.heapify(held)
                await self._move(consumer, [last.delivery], *_way(last.at))
            while said := await names.take(WINDOW, 0):
                known.learn([one for one in said if convert.marker(one) is None])
                await names.ack([one.tag for one in said])
            purged = [one for one in ready if one.sent <= known.purged.get(one.to.exchange, -1)]
            await consumer.ack([one.delivery.tag for one in purged])
            ready = [one for one in ready if one not in purged]
            for one in await self._enter(consumer, ready):
                heapq.heappush(held, one)
            wait = min(PATIENCE, max(0.0, held[0].at - time.time())) if held else PATIENCE

    async def _enter(self, consumer: Consumer, ready: Sequence[_Held]) -> list[_Held]:
        """Publish messages to their topics; return those to try once more at once."""
        if not ready:
            return []
        async with self._entering:
            return await self._publish(consumer, ready)

    async def _publish(self, consumer: Consumer, ready: Sequence[_Held]) -> list[_Held]:
        self._logs.update({one.to.exchange: one.to.log for one in ready})
        outcomes = await self._publisher.publish([_due(one) for one in ready])
        done: list[Delivery] = []
        absent: list[_Held] = []
        later: list[Delivery] = []
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
                    later.append(one.delivery)
        await consumer.ack([delivery.tag for delivery in done])
        missing = {one.to.exchange: one.to for one in absent}
        gone = {exchange for exchange, to in missing.items() if await self._is_gone(to)}
        lost = [one.delivery for one in absent if one.to.exchange in gone]
        later += [one.delivery for one in absent if one.to.exchange not in gone]
        await self._move(consumer, lost, LOST, "")
        await self._move(consumer, later, *_way(time.time() + PATIENCE))
        return repeated

    async def _is_gone(self, to: Destination) -> bool:
        """Whether there is no such topic any more.

        One that is there, and takes nothing, has a log that hears nothing of it: that is mended.
        """
        if to.log is None:
            return True
        try:
            await topology.look(self._link, to.log)
            await topology.bind(self._link, to.log, to.exchange)
        except ChannelNotFoundEntity:
            return True
        except QueueDown:
            pass
        return False

    async def _move(
        self, consumer: Consumer, deliveries: Sequence[Delivery], exchange: str, key: str
    ) -> None:
        copies = [convert.forward(one, exchange, key) for one in deliveries]
        await self._publisher.publish_all(copies)
        await consumer.ack([delivery.tag for delivery in deliveries])

    async def _check(self, exchange: str) -> None:
        if exchange not in self._logs:
            return
        if log := self._logs[exchange]:
            await topology.look(self._link, log)
        else:
            await topology.require_exchange(self._link, exchange)


def _way(at: float) -> tuple[str, str]:
    """The exchange and routing key that lead to the queue shortly before `at`."""
    delay = at - time.time() - LEAD - STEP
    if delay <= 0:
        return "", QUEUE
    level, key = address(QUEUE, delay)
    return level_name(level), key


def _due(held: _Held) -> Outgoing:
    to = held.to
    return convert.forward(held.delivery, to.exchange, to.key, entering=HEADER)
