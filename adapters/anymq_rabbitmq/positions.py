"""`Log`: the stream of a topic, read without a group: its places, and what lies between them.

A position is the offset in the stream, in decimal digits. A group's deliveries come from queues,
which know of no offset: they have the message's id for a position, and a place named so is looked
for in the whole log. The end of a stream has no number until something is written there: so a
marker is, that readers leave out.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from anymq.driver import ConfigurationError, ConnectionLost, Received, Start, new_id

from . import convert, topology
from .consumer import Consumer, Delivery
from .link import Link
from .publisher import Publisher

START = -1
"""The place before everything."""
PATIENCE = 1.0
TRIES = 10
WINDOW = 1000
# The stream knows times by the server's clock, and by whole seconds; messages know their
# publisher's.
SKEW = timedelta(seconds=10)


class Log:
    """One stream. If it is not there the server's error is raised."""

    def __init__(self, stream: str, link: Link, publisher: Publisher) -> None:
        self.stream = stream
        self._link = link
        self._publisher = publisher

    async def place(self, start: Start) -> int:
        """The offset where `start` is, as of now.

        Raises `ConfigurationError` for a text that names no place.
        """
        if start == "earliest":
            return START
        if start == "latest":
            return await self._end()
        if isinstance(start, datetime):
            moment = start.astimezone(UTC)
            found = await self._find(moment - SKEW, _not_before(moment.timestamp()))
            return await self._end() if found is None else found
        if start.isascii() and start.isdigit() and len(start) < 19:
            return await self._at(int(start))
        found = await self._find("first", lambda one: convert.identity(one) == start)
        if found is None:
            raise ConfigurationError(_no_place(start))
        return found

    async def between(self, place: int) -> AsyncIterator[Sequence[Received]]:
        """Yield what is there from `place` on, up to the end as of now."""
        async for deliveries, _ in self.read("first" if place == START else place):
            if records := [_record(one) for one in deliveries if convert.offset(one) >= place]:
                yield records

    async def read(
        self, place: str | int | datetime
    ) -> AsyncGenerator[tuple[list[Delivery], int], None]:
        """Yield messages from `place` to the end as of now, and the offset behind them."""
        stream = await self._open(place)
        try:
            marker = new_id()
            await self._publisher.publish_all([convert.mark(marker, self.stream)])
            silence = 0
            while silence < TRIES:
                taken = await stream.take(WINDOW, PATIENCE)
                silence = 0 if taken else silence + 1
                names = [convert.marker(one) for one in taken]
                arrived = marker in names
                del taken[names.index(marker) + 1 if arrived else len(taken) :]
                await stream.ack([one.tag for one in taken])
                if taken:
                    mine = zip(taken, names, strict=False)
                    yield (
                        [one for one, name in mine if name is None],
                        convert.offset(taken[-1]) + 1,
                    )
                if arrived:
                    return
        finally:
            await stream.aclose()
        raise ConnectionLost("RabbitMQ does not deliver what is written to the log")

    async def _at(self, offset: int) -> int:
        if offset > await self._end():
            raise ConfigurationError(_no_place(str(offset)))
        return offset

    async def _end(self) -> int:
        end = 0
        async for _, behind in self.read("next"):
            end = behind
        return end

    async def _find(self, begin: str | datetime, wanted: Callable[[Delivery], bool]) -> int | None:
        async with aclosing(self.read(begin)) as reading:
            async for deliveries, _ in reading:
                for one in deliveries:
                    if wanted(one):
                        return convert.offset(one)
        return None

    async def _open(self, place: str | int | datetime) -> Consumer:
        arguments = {"x-stream-offset": place}
        return await topology.when_up(
            lambda: Consumer.open(self._link, self.stream, prefetch=WINDOW, arguments=arguments)
        )


def _record(delivery: Delivery) -> Received:
    record = convert.received(
        delivery,
        token=None,
        position=str(convert.offset(delivery)),
        partition=convert.partition(delivery) or 0,
    )
    assert record is not None
    return record


def _not_before(moment: float) -> Callable[[Delivery], bool]:
    def holds(delivery: Delivery) -> bool:
        stamp, unit = convert.stamp(delivery)
        return stamp is None or stamp >= math.floor(moment / unit) * unit

    return holds


def _no_place(text: str) -> str:
    return (
        f"{text!r} is no place in the topic: give 'earliest', 'latest', a time, the position of a "
        "message, or its id"
    )
