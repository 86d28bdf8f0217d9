"""`Backfill`: fills the queues of a new group from the log, from the group's start position on.

While it runs there is one more queue, `<queue>._fill`. It holds the checkpoint: the offset of the
log from which on messages are still to be copied. Every member consumes that queue, and the server
lets one at a time have the checkpoint (single active consumer). If that member dies, the next one
gets the checkpoint. To advance it, a new one is published and confirmed before the old one is
acknowledged. The queue is made before the group's queue, and deleted when all is copied. So a group
without it is complete; a group that has it is filled further by the next member that subscribes.
Members consume the group's queue meanwhile.

When the log has been copied, the group's queue and a second, short-lived log start to receive what
is published: the live tap. Both are bound to an exchange of their own, `._seam`, so one binding of
that exchange to the topic starts both at once. The tap therefore has exactly the messages that
reached the queue by themselves. The rest of the log, up to `ROUTING_GRACE` after the binding, is
copied without them. That time is for messages that were routed before the binding and are still on
their way into the log. A message is recognised by its id, or otherwise by all of its content: of
several equal ones, as many are copied as came before the binding.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import NotFound, SourceLost, fault, new_id, supervise

from .. import messages
from ..client import protocol
from ..client.fetcher import ConsumerCancelled, Delivery, Fetcher
from ..connection import Connection
from ..positions import EARLIEST, open_stream
from ..publisher import Publisher
from .group import Group

ROUTING_GRACE = 0.5
"""Seconds from the binding of the live tap until all messages routed before it are in the log."""
MOST_CHECKPOINTS = 1000
"""Checkpoints that one member holds."""
CHECKPOINT_INTERVAL = 500
"""Messages copied between two checkpoints; a crash repeats at most these."""
RECEIVE_TIMEOUT = 1.0
"""Seconds that one read waits for messages."""
LIVE_TIMEOUT = 5.0
"""Seconds that a subscription waits for the live tap; with a longer log it starts before."""
CLOSE_TIMEOUT = 1.5
"""Seconds that a closing source waits for its part in the backfill to end."""
WINDOW_BYTES = 2 * 1024 * 1024
"""Bytes of a `LogReader`'s window. A backfill holds a few: the next window, and unconfirmed copies.
"""
SMALLEST_WINDOW, LARGEST_WINDOW = 4, 250
"""Messages of a `LogReader`'s window. The largest is read before it is known how large they are."""
# Not a quorum queue: what a new one of those has confirmed is not safe for the first second.
_CHECKPOINT_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "classic",
    "x-single-active-consumer": True,
}
# The tap is read within moments. It must not grow when a backfill stops.
_TAP_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 64_000_000,
    "x-stream-max-segment-size-bytes": 8_000_000,
}


class Backfill:
    """One member's part in filling the queues of one group."""

    def __init__(
        self, connection: Connection, publisher: Publisher, group: Group, *, settle: float
    ) -> None:
        self._settle = settle
        self._connection = connection
        self._publisher = publisher
        self._group = group
        self.live = asyncio.Event()
        """Set when published messages reach the group's queues by themselves."""

    async def order(self, begin: int) -> None:
        """Publish the first checkpoint, before the group's queue exists.

        `begin` is an offset of the log, or `EARLIEST`. If two members do so, the second checkpoint
        adds nothing.
        """
        await protocol.ensure_queue(
            self._connection, self._group.checkpoints, _CHECKPOINT_ARGUMENTS
        )
        await self.checkpoint(begin)

    async def run(self) -> None:
        """Return when the group's queues are complete, whichever member has filled them.

        After a cancellation or an error the checkpoint is left for the next member.
        """
        while True:
            try:
                fetcher = await Fetcher.open(
                    self._connection, self._group.checkpoints, prefetch=MOST_CHECKPOINTS
                )
            except ChannelNotFoundEntity:
                return
            try:
                if await self._fill(_Checkpoints(fetcher)):
                    return
            except ConsumerCancelled:
                continue  # The queue was deleted, or has moved: the next round finds out.
            finally:
                await fetcher.aclose()

    async def _fill(self, checkpoints: _Checkpoints) -> bool:
        """Fill the queues from the earliest checkpoint on; False if an earlier one has come."""
        connection, group = self._connection, self._group
        while not checkpoints.held:
            await checkpoints.collect(RECEIVE_TIMEOUT)
        await group.declare_live_tap(connection, _TAP_ARGUMENTS)
        begin = min(checkpoints.held.values())
        await protocol.wait_until_durable(connection, self._settle)
        log = await self._read(group.log, "first" if begin == EARLIEST else begin)
        tap = await self._read(group.live_tap, "first")
        try:
            copying = _Copying(self, checkpoints, log, tap, begin)
            await copying.advance()
            await group.bind_live_tap(connection)
            self.live.set()
            await copying.advance()
            await asyncio.sleep(ROUTING_GRACE)
            await copying.advance()
        finally:
            await asyncio.gather(log.aclose(), tap.aclose())
        await checkpoints.collect(0)
        checkpoints.covered(begin, copying.at + 1)
        if checkpoints.held:
            return False
        await self._finish()
        return True

    async def _finish(self) -> None:
        connection, group = self._connection, self._group
        await self._end_histories()
        # Bound in both ways, a queue still gets each message once.
        await group.bind(connection)
        # The checkpoint first: if the server crashes while it deletes a stream, that may stay down
        # for good, and would block the next member that continues the backfill.
        await protocol.delete_queue(connection, group.checkpoints)
        await group.delete_live_tap(connection)
        await protocol.fsync_metadata(connection)

    async def _read(self, stream: str, offset: str | int) -> LogReader:
        reader = LogReader(self._connection, stream, offset)
        await reader.open()
        return reader

    async def _end_histories(self) -> None:
        """Mark the end of each history. One that is absent was marked and read before."""
        marks = [messages.marker_message(new_id(), queue) for queue in self._group.histories]
        for outcome in await self._publisher.publish(marks):
            if outcome is not None and not isinstance(outcome, NotFound):
                raise outcome

    async def copy(self, deliveries: Sequence[Delivery]) -> None:
        """Copy messages of the log into the group's queues."""
        await self._publisher.publish_all(
            [
                messages.copy(one, queue, message_id=str(messages.offset(one)))
                for one in deliveries
                if (queue := self._group.backfilled(one))
            ]
        )

    async def checkpoint(self, offset: int) -> None:
        """Publish the checkpoint: messages from `offset` on are still to be copied."""
        body = str(offset).encode()
        await self._publisher.publish_all(
            [messages.internal_message(self._group.checkpoints, body)]
        )

    async def mark(self) -> str:
        """Write a marker to the log, and then to the live tap; return its name."""
        name = new_id()
        for stream in (self._group.log, self._group.live_tap):
            await self._publisher.publish_all([messages.marker_message(name, stream)])
        return name


class BackfillTask:
    """A running `Backfill`, as long as the source that takes part in it is open."""

    def __init__(self, backfill: Backfill) -> None:
        self._backfill = backfill
        self._failure: Exception | None = None
        self._task = supervise(self._run(), name="anymq-backfill")

    async def _run(self) -> None:
        try:
            await self._backfill.run()
        except BaseException as error:
            self._failure = fault(error, "the backfill")

    async def started(self) -> None:
        """Return when later messages come after those that the group has now.

        If the log is too long to be copied within `LIVE_TIMEOUT` seconds, return then: the rest of
        the log is read before later messages.
        """
        live = asyncio.ensure_future(self._backfill.live.wait())
        try:
            await asyncio.wait(
                (self._task, live), timeout=LIVE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            live.cancel()
        self.check()

    def check(self) -> None:
        """Raise `SourceLost` if the backfill has failed."""
        if self._failure is not None:
            raise SourceLost(f"backfill of the group failed: {self._failure!r}") from self._failure

    def cancel(self) -> None:
        """Leave the rest to other members, unless the live tap is bound.

        The last steps are finished then, because the next member would start them again with all
        that has been published by then.
        """
        if not self._backfill.live.is_set():
            self._task.cancel()

    async def aclose(self) -> None:
        """Wait up to `CLOSE_TIMEOUT` seconds until it has ended, then cancel it."""
        try:
            await asyncio.wait((self._task,), timeout=CLOSE_TIMEOUT)
        finally:
            self._task.cancel()


@dataclass(slots=True)
class _Checkpoints:
    """The checkpoints that this member holds unacknowledged: offsets by delivery tag."""

    fetcher: Fetcher
    held: dict[int, int] = field(default_factory=dict)

    async def collect(self, wait: float) -> None:
        for delivery in await self.fetcher.take(MOST_CHECKPOINTS, wait):
            self.held[delivery.tag] = int(delivery.body)

    def covered(self, begin: int, end: int) -> list[int]:
        """Remove and return those that are done when `begin` to `end` has been copied."""
        tags = [tag for tag, first in self.held.items() if begin <= first < end]
        for tag in tags:
            del self.held[tag]
        return tags


class _Copying:
    """The progress along the log, and along the live tap beside it."""

    def __init__(
        self,
        backfill: Backfill,
        checkpoints: _Checkpoints,
        log: LogReader,
        tap: LogReader,
        begin: int,
    ) -> None:
        self.at = begin
        """The offset after the last copied message."""
        self._checkpoint = begin
        self._begin = begin
        self._backfill = backfill
        self._checkpoints = checkpoints
        self._log = log
        self._tap = tap
        self._tapped: set[tuple[str, str]] = set()
        self._tapped_without_id: Counter[tuple[bytes, str]] = Counter()
        """How many messages without an id came through the tap, by routing key and fingerprint."""

    async def advance(self) -> None:
        """Copy the log up to now, without the messages that came through the tap."""
        marker = await self._backfill.mark()
        arrived = False
        while not arrived:
            deliveries, arrived = await self._until(marker, self._tap)
            self._note_tapped(deliveries)
        arrived = False
        while not arrived:
            deliveries, arrived = await self._until(marker, self._log)
            await self._copy(deliveries)
        await self._advance_checkpoint()

    def _note_tapped(self, deliveries: Sequence[Delivery]) -> None:
        for one in deliveries:
            if messages.marker(one) is None:
                if id := messages.event_id(one):
                    self._tapped.add(id)
                else:
                    self._tapped_without_id[one.routing_key, messages.fingerprint(one)] += 1

    def _was_tapped(self, delivery: Delivery) -> bool:
        if id := messages.event_id(delivery):
            return id in self._tapped
        alike = delivery.routing_key, messages.fingerprint(delivery)
        if not self._tapped_without_id[alike]:
            return False
        self._tapped_without_id[alike] -= 1
        return True

    async def _until(self, marker: str, stream: LogReader) -> tuple[list[Delivery], bool]:
        """Return the next messages of a stream, and whether they end with the marker."""
        deliveries = await stream.take(RECEIVE_TIMEOUT)
        if not deliveries and (error := self._checkpoints.fetcher.error):
            raise error
        names = [messages.marker(one) for one in deliveries]
        arrived = marker in names
        if arrived:
            after = names.index(marker) + 1
            stream.put_back(deliveries[after:])
            del deliveries[after:]
        await stream.ack([one.tag for one in deliveries])
        return deliveries, arrived

    async def _copy(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        copies = [
            one
            for one in deliveries
            if messages.offset(one) >= self.at
            and messages.marker(one) is None
            and not self._was_tapped(one)
        ]
        await self._backfill.copy(copies)
        self.at = max(self.at, messages.offset(deliveries[-1]) + 1)
        if self.at - self._checkpoint >= CHECKPOINT_INTERVAL:
            await self._advance_checkpoint()

    async def _advance_checkpoint(self) -> None:
        self._checkpoint = self.at
        await self._backfill.checkpoint(self.at)
        await self._checkpoints.collect(0)
        await self._checkpoints.fetcher.ack(self._checkpoints.covered(self._begin, self.at))


class LogReader:
    """Reads a stream from an offset on, about `WINDOW_BYTES` at a time.

    The server counts messages, not bytes. So the first window is small, and the reader starts a new
    consumer at its present offset when another window fits the size of the messages better.
    """

    def __init__(self, connection: Connection, stream: str, offset: str | int) -> None:
        self._connection = connection
        self._stream = stream
        self._offset = offset
        self._window = SMALLEST_WINDOW
        self._size = 0.0
        """The average size of recent messages, in bytes."""
        self._read = 0
        """Messages read since the window has its size."""
        self._fetcher: Fetcher | None = None

    async def open(self) -> None:
        """Start consuming."""
        self._read = 0
        self._fetcher = await open_stream(
            self._connection, self._stream, prefetch=self._window, offset=self._offset
        )

    async def take(self, wait: float) -> list[Delivery]:
        """Take the messages that are there, waiting up to `wait` seconds for the first.

        Call it when all taken before are acknowledged.
        """
        fitting = int(WINDOW_BYTES / max(self._size, 1.0))
        fitting = max(SMALLEST_WINDOW, min(LARGEST_WINDOW, fitting))
        larger = fitting >= 2 * self._window and self._read >= self._window
        if larger or 2 * fitting <= self._window:
            self._window = min(fitting, 4 * self._window)
            await self.aclose()
            await self.open()
        assert self._fetcher is not None
        taken = await self._fetcher.take(LARGEST_WINDOW, wait)
        if taken:
            self._offset = messages.offset(taken[-1]) + 1
            size = sum(len(one.body) for one in taken) / len(taken)
            self._size = max(size, (self._size + size) / 2)
            self._read += len(taken)
        return taken

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Undo a `take`, or the end of it."""
        assert self._fetcher is not None
        if deliveries:
            self._offset = messages.offset(deliveries[0])
            self._fetcher.put_back(deliveries)

    async def ack(self, tags: Collection[int]) -> None:
        """Acknowledge messages, so that the server sends more."""
        assert self._fetcher is not None
        await self._fetcher.ack(tags)

    async def aclose(self) -> None:
        """Stop consuming."""
        if self._fetcher is not None:
            await self._fetcher.aclose()
