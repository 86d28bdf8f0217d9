"""`Log`: a stream read without a group, and the offsets that start positions stand for in it.

A position is an offset of the stream, in decimal digits. Deliveries from queues, which know no
offset, have the message's id as position; a start position of that kind is searched in the whole
log. The server does not tell the end of a stream. So a marker is written there, which readers skip.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from aiormq.exceptions import ConnectionInternalError, ConnectionNotAllowed

from anymq.driver import ConfigurationError, ConnectionLost, Received, Start, new_id

from . import messages
from .client.fetcher import Delivery, Fetcher
from .client.protocol import queue_counts, when_up
from .connection import Connection, QueueDown
from .publisher import Publisher

EARLIEST = -1
"""The offset before all messages."""
RECEIVE_TIMEOUT = 1.0
"""Seconds that one read waits for messages of the stream."""
MOST_EMPTY_READS = 10
"""Consecutive reads without a message, before the marker, after which the read has failed."""
WINDOW = 1000
"""Messages that the server sends ahead."""
CLOCK_SKEW = timedelta(seconds=10)
"""How far before a time the search for it starts. The stream indexes messages by the server's clock
in whole seconds; messages carry the time of their publisher's clock."""


class Log:
    """One stream. Its methods raise the server's error if it does not exist."""

    def __init__(self, stream: str, connection: Connection, publisher: Publisher) -> None:
        self.stream = stream
        self._connection = connection
        self._publisher = publisher

    async def offset_of(self, start: Start) -> int:
        """Return the offset that `start` stands for now.

        Raises `ConfigurationError` for a text that is no position.
        """
        if start == "earliest":
            return EARLIEST
        if start == "latest":
            return await self._end()
        if isinstance(start, datetime):
            moment = start.astimezone(UTC)
            found = await self._find(moment - CLOCK_SKEW, _not_before(moment.timestamp()))
            return await self._end() if found is None else found
        if start.isascii() and start.isdigit() and len(start) < 19:
            return await self._existing(int(start))
        found = await self._find("first", lambda one: messages.message_id(one) == start)
        if found is None:
            raise ConfigurationError(_no_position(start))
        return found

    async def browse(self, begin: int) -> AsyncIterator[Sequence[Received]]:
        """Yield the records from the offset `begin` to the present end."""
        async for deliveries, _ in self.read("first" if begin == EARLIEST else begin):
            if records := [
                messages.received_from_log(one)
                for one in deliveries
                if messages.offset(one) >= begin
            ]:
                yield records

    async def read(
        self, begin: str | int | datetime
    ) -> AsyncGenerator[tuple[list[Delivery], int], None]:
        """Yield the messages from `begin` to the present end, each list with the offset after it.

        `begin` is as in the server's argument `x-stream-offset`.
        """
        fetcher = await open_stream(self._connection, self.stream, prefetch=WINDOW, offset=begin)
        try:
            marker = new_id()
            await self._publisher.publish_all([messages.marker_message(marker, self.stream)])
            empty_reads = 0
            while empty_reads < MOST_EMPTY_READS:
                taken = await fetcher.take(WINDOW, RECEIVE_TIMEOUT)
                empty_reads = 0 if taken else empty_reads + 1
                names = [messages.marker(one) for one in taken]
                arrived = marker in names
                del taken[names.index(marker) + 1 if arrived else len(taken) :]
                await fetcher.ack([one.tag for one in taken])
                if taken:
                    marked = zip(taken, names, strict=False)
                    yield (
                        [one for one, name in marked if name is None],
                        messages.offset(taken[-1]) + 1,
                    )
                if arrived:
                    return
        finally:
            await fetcher.aclose()
        raise ConnectionLost(f"RabbitMQ does not deliver the end of the stream {self.stream!r}")

    async def _existing(self, offset: int) -> int:
        if offset > await self._end():
            raise ConfigurationError(_no_position(str(offset)))
        return offset

    async def _end(self) -> int:
        end = 0
        async for _, after in self.read("next"):
            end = after
        return end

    async def _find(self, begin: str | datetime, wanted: Callable[[Delivery], bool]) -> int | None:
        async with aclosing(self.read(begin)) as reading:
            async for deliveries, _ in reading:
                for one in deliveries:
                    if wanted(one):
                        return messages.offset(one)
        return None


async def open_stream(
    connection: Connection, stream: str, *, prefetch: int, offset: str | int | datetime
) -> Fetcher:
    """Start to read a stream; wait for one that another connection is just making.

    The server lists a new stream some milliseconds before its coordinator of streams knows it. To a
    consumer that comes in between it answers with INTERNAL_ERROR, and closes the whole connection.
    A stream that contains messages is known. For any other, a connection of its own asks first, so
    that no other user of the connection is disturbed. `offset` is as in the server's argument
    `x-stream-offset`.
    """

    async def attempt() -> Fetcher:
        await _require_started(connection, stream)
        return await _open(connection, stream, prefetch, offset)

    return await when_up(attempt)


async def _open(
    connection: Connection, stream: str, prefetch: int, offset: str | int | datetime
) -> Fetcher:
    arguments = {"x-stream-offset": offset}
    return await Fetcher.open(connection, stream, prefetch=prefetch, arguments=arguments)


async def _require_started(connection: Connection, stream: str) -> None:
    """Raise `QueueDown` if the server would close the connection of a consumer."""
    stored, _ = await queue_counts(connection, stream)
    if stored:
        return
    probe = connection.another("probe")
    try:
        await (await _open(probe, stream, 1, "next")).aclose()
    except ConnectionInternalError as error:
        raise QueueDown(f"the stream {stream!r} is just being made") from error
    except ConnectionNotAllowed:
        return  # The server's limit of connections is reached.
    finally:
        await probe.aclose()


def _not_before(moment: float) -> Callable[[Delivery], bool]:
    """Return a test for messages published at `moment` or later, as exactly as is known."""

    def holds(delivery: Delivery) -> bool:
        published, resolution = messages.published_at(delivery)
        return published is None or published >= math.floor(moment / resolution) * resolution

    return holds


def _no_position(text: str) -> str:
    return (
        f"{text!r} is no position in the topic: give 'earliest', 'latest', a time, the position of "
        "a message, or its id"
    )
