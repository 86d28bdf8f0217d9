"""Fills the queue of a new group from the log, so that it begins with the earliest message, or
where else it shall.

While a group is being filled there is one more queue, `<queue>._fill`, with one job in it: from
which offset on the log is still to be copied. Every member consumes that queue, of which the server
lets one at a time have the job (single active consumer); should it die, the next member gets the
job. Progress is a new job, confirmed, before the old one is acknowledged. The queue is made
before the group's queue and deleted when all is copied, so a group that has no such queue is
complete, and one that has is filled further by whoever subscribes next. Members consume the group's
queue meanwhile.

The seam: once the log has been copied, the group's queue gets what is published from then on, and
so does a second, short-lived log, the witness: both hang on an exchange of their own, `._seam`, so
that binding that one exchange to the topic is one step for the two. Thus the witness tells exactly
which messages came by themselves, and the rest of the log, up to some time after the binding, is
copied without them. That time, `GRACE`, is for what was routed before the binding and is still on
its way into the log. A message is recognised by its id, or else by all that it consists of: of
several that are the same, as many are copied as came before the binding.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import NotFound, SourceLost, new_id

from . import convert, topology
from .bounded import BoundedStream
from .consumer import Cancelled, Consumer, Delivery
from .group import Group
from .link import Link
from .log import START
from .publisher import Outgoing, Publisher

GRACE = 0.5
WINDOW = 1000
CHECKPOINT = 500
PATIENCE = 1.0
FILL_TIMEOUT = 5.0
GIVE_UP_TIMEOUT = 1.5
# Not a quorum queue: what a new one of those has confirmed is not safe for the first second.
_JOB_ARGUMENTS: dict[str, Any] = {"x-queue-type": "classic", "x-single-active-consumer": True}
# The witness matters for moments. It must not grow where a filling is not gone on with.
_WITNESS_ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 64_000_000,
    "x-stream-max-segment-size-bytes": 8_000_000,
}


@dataclass(slots=True)
class _Jobs:
    """The jobs in hand: the server keeps them until they are acknowledged."""

    consumer: Consumer
    held: dict[int, int] = field(default_factory=dict)

    async def collect(self, wait: float) -> None:
        for delivery in await self.consumer.take(WINDOW, wait):
            self.held[delivery.tag] = int(delivery.body)

    def covered(self, begin: int, end: int) -> list[int]:
        """Take out the jobs that are done when `begin` to `end` has been copied."""
        tags = [tag for tag, first in self.held.items() if begin <= first < end]
        for tag in tags:
            del self.held[tag]
        return tags


class Fill:
    """One member's part in filling one group."""

    def __init__(self, link: Link, publisher: Publisher, group: Group, *, settle: float) -> None:
        self._settle = settle
        self._link = link
        self._publisher = publisher
        self._group = group
        self._jobs = group.jobs
        self._seam = group.seam
        self.live = asyncio.Event()
        """Set when what is published reaches the group's queues by itself."""

    async def order(self, begin: int) -> None:
        """Leave the job where the members find it; the group's queue is not there yet.

        `begin` is an offset of the log, or `START`. Two members may both do so: a second job adds
        nothing to the first.
        """
        await topology.ensure_queue(self._link, self._jobs, _JOB_ARGUMENTS)
        await self._publisher.publish_all([self._job(begin)])

    async def run(self) -> None:
        """Return when the group's queue is complete, by whichever member's work.

        Cancelled, or failing, it leaves the job for the next.
        """
        while True:
            try:
                consumer = await Consumer.open(self._link, self._jobs, prefetch=WINDOW)
            except ChannelNotFoundEntity:
                return
            try:
                if await self._work(_Jobs(consumer)):
                    return
            except Cancelled:
                continue  # The queue of jobs is gone, or has moved: look.
            finally:
                await consumer.aclose()

    async def _work(self, jobs: _Jobs) -> bool:
        while not jobs.held:
            await jobs.collect(PATIENCE)
        await topology.declare_seam(self._link, self._seam, self._group.live, _WITNESS_ARGUMENTS)
        begin = min(jobs.held.values())
        await topology.settled(self._link, self._settle)
        log = await self._read(self._group.log, "first" if begin == START else begin)
        witness = await self._read(self._seam, "first")
        try:
            copying = _Copying(self, jobs, log, witness, begin)
            await copying.advance()
            await topology.bind_seam(self._link, self._seam, self._group.exchange)
            self.live.set()
            await copying.advance()
            await asyncio.sleep(GRACE)
            await copying.advance()
        finally:
            await asyncio.gather(log.aclose(), witness.aclose())
        await jobs.collect(0)
        jobs.covered(begin, copying.at + 1)
        if jobs.held:
            return False
        await self._end_histories()
        # Bound in both ways, a queue still gets each message once.
        await self._group.bind(self._link)
        # The job first: a stream that a crash catches being deleted may stay there, down for good,
        # and would stop whoever went on with the job.
        await topology.delete_queue(self._link, self._jobs)
        await topology.delete_seam(self._link, self._seam)
        await topology.seal(self._link)
        return True

    async def _read(self, stream: str, offset: str | int) -> BoundedStream:
        reading = BoundedStream(self._link, stream, offset)
        await reading.open()
        return reading

    def _job(self, offset: int) -> Outgoing:
        return convert.message_to(self._jobs, str(offset).encode())

    async def _end_histories(self) -> None:
        """Mark the ends. One that is gone has been marked, and read, before."""
        marks = [convert.mark(new_id(), queue) for queue in self._group.histories]
        for outcome in await self._publisher.publish(marks):
            if outcome is not None and not isinstance(outcome, NotFound):
                raise outcome

    async def copy(self, deliveries: Sequence[Delivery]) -> None:
        """Put messages of the log into the group's queue."""
        await self._publisher.publish_all(
            [
                convert.copy(one, queue, message_id=str(convert.offset(one)))
                for one in deliveries
                if (queue := self._group.filled(one))
            ]
        )

    async def note(self, offset: int) -> None:
        """Leave a job for what is still to be copied."""
        await self._publisher.publish_all([self._job(offset)])

    async def mark(self) -> str:
        """Write a marker to the log, and then to the witness."""
        name = new_id()
        for stream in (self._group.log, self._seam):
            await self._publisher.publish_all([convert.mark(name, stream)])
        return name


class Filling:
    """A `Fill` at work, while the source that takes part in it lives."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._task = asyncio.create_task(fill.run(), name="anymq-fill")

    async def begun(self) -> None:
        """Return when what is published from now on takes its place behind what is there, or soon
        if the log is long: then the rest comes before it."""
        live = asyncio.ensure_future(self._fill.live.wait())
        try:
            await asyncio.wait(
                (self._task, live), timeout=FILL_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            live.cancel()
        self.check()

    def check(self) -> None:
        """Raise `SourceLost` if it has failed."""
        if not self._task.done() or (self._task.cancelled() and self._task.cancelling()):
            return
        error = asyncio.CancelledError() if self._task.cancelled() else self._task.exception()
        if error is not None:
            raise SourceLost(f"filling the new group: {error!r}") from error

    def cancel(self) -> None:
        """Leave the rest to the others; but for the last steps, which the next one would have to
        begin anew, with all that has been published by then."""
        if not self._fill.live.is_set():
            self._task.cancel()

    async def aclose(self) -> None:
        """Wait until it has left; bounded."""
        try:
            await asyncio.wait((self._task,), timeout=GIVE_UP_TIMEOUT)
        finally:
            self._task.cancel()


class _Copying:
    """Goes along the log, and along the witness beside it."""

    def __init__(
        self, fill: Fill, jobs: _Jobs, log: BoundedStream, witness: BoundedStream, begin: int
    ) -> None:
        self.at = begin
        self._noted = begin
        self._begin = begin
        self._fill = fill
        self._jobs = jobs
        self._log = log
        self._witness = witness
        self._seen: set[tuple[str, str]] = set()
        self._alike: Counter[tuple[bytes, str]] = Counter()
        """How many without an id have come by themselves, by routing key and fingerprint."""

    async def advance(self) -> None:
        """Copy what is in the log by now, but for what has come by itself."""
        marker = await self._fill.mark()
        arrived = False
        while not arrived:
            deliveries, arrived = await self._until(marker, self._witness)
            self._note_witnessed(deliveries)
        arrived = False
        while not arrived:
            deliveries, arrived = await self._until(marker, self._log)
            await self._copy(deliveries)
        await self._note()

    def _note_witnessed(self, deliveries: Sequence[Delivery]) -> None:
        for one in deliveries:
            if convert.marker(one) is None:
                if id := convert.event_id(one):
                    self._seen.add(id)
                else:
                    self._alike[one.routing_key, convert.fingerprint(one)] += 1

    def _has_come(self, delivery: Delivery) -> bool:
        if id := convert.event_id(delivery):
            return id in self._seen
        alike = delivery.routing_key, convert.fingerprint(delivery)
        if not self._alike[alike]:
            return False
        self._alike[alike] -= 1
        return True

    async def _until(self, marker: str, stream: BoundedStream) -> tuple[list[Delivery], bool]:
        """The next messages of a stream, and whether they are those before the marker."""
        deliveries = await stream.take(PATIENCE)
        if not deliveries and (error := self._jobs.consumer.error):
            raise error
        names = [convert.marker(one) for one in deliveries]
        arrived = marker in names
        if arrived:
            behind = names.index(marker) + 1
            stream.put_back(deliveries[behind:])
            del deliveries[behind:]
        await stream.ack([one.tag for one in deliveries])
        return deliveries, arrived

    async def _copy(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        copies = [
            one
            for one in deliveries
            if convert.offset(one) >= self.at
            and convert.marker(one) is None
            and not self._has_come(one)
        ]
        await self._fill.copy(copies)
        self.at = max(self.at, convert.offset(deliveries[-1]) + 1)
        if self.at - self._noted >= CHECKPOINT:
            await self._note()

    async def _note(self) -> None:
        self._noted = self.at
        await self._fill.note(self.at)
        await self._jobs.collect(0)
        await self._jobs.consumer.ack(self._jobs.covered(self._begin, self.at))
