"""Fills the queue of a new group from the log, so that it begins with the earliest message.

While a group is being filled there is one more queue, `<queue>._fill`, with one job in it: from
which offset on the log is still to be copied. Every member consumes that queue, of which the server
lets one at a time have the job (single active consumer); should it die, the next member gets the
job. Progress is a new job, confirmed, before the old one is acknowledged. The queue is made
before the group's queue and deleted last, so a group that has no such queue is complete, and one
that has is filled further by whoever subscribes next. Members consume the group's queue meanwhile.

The group's queue is bound to the topic at the end of the log, so what is old comes first. The seam:
a marker is written to the log; when the copying comes to it, the queue is bound; after `GRACE` a
second marker is written, and everything before that is copied too. What is published around the
binding may so be delivered twice. It cannot be missed: the server may route by what it knew
before the binding for a moment only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.message import new_id

from . import convert, topology
from .consumer import Cancelled, Consumer, Delivery
from .link import Link
from .publisher import Outgoing, Publisher

GRACE = 0.5
WINDOW = 1000
PATIENCE = 1.0
_START = -1
_JOB_ARGUMENTS = {**topology.GROUP_ARGUMENTS, "x-single-active-consumer": True}


@dataclass(slots=True)
class _Held:
    """The jobs in hand: the server keeps them until they are acknowledged."""

    jobs: dict[int, int] = field(default_factory=dict)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.jobs[delivery.tag] = int(delivery.body)

    def covered(self, begin: int, end: int) -> list[int]:
        """Take out the jobs that are done when `begin` to `end` has been copied."""
        tags = [tag for tag, first in self.jobs.items() if begin <= first < end]
        for tag in tags:
            del self.jobs[tag]
        return tags


class Fill:
    """One member's part in filling one group's queue."""

    def __init__(self, link: Link, publisher: Publisher, *, exchange: str, queue: str) -> None:
        self._link = link
        self._publisher = publisher
        self._exchange = exchange
        self._log = topology.log_of(exchange)
        self._queue = queue
        self._jobs = topology.fill_of(queue)

    async def order(self) -> None:
        """Leave the job where the members find it; the group's queue is not there yet.

        Two members may both do so: a second job adds nothing to the first.
        """
        await topology.ensure_queue(self._link, self._jobs, _JOB_ARGUMENTS)
        await self._publisher.publish_all([self._job(_START)])

    async def run(self) -> None:
        """Return when the group's queue is complete, by whichever member's work.

        Cancelled, or failing, it leaves the job for the next.
        """
        while True:
            try:
                jobs = await Consumer.open(self._link, self._jobs, prefetch=WINDOW)
            except ChannelNotFoundEntity:
                return
            try:
                if await self._work(jobs):
                    await topology.delete_queue(self._link, self._jobs)
                    return
            except Cancelled:
                continue  # The queue of jobs is gone, or has moved: look.
            finally:
                await jobs.aclose()

    async def _work(self, jobs: Consumer) -> bool:
        held = _Held()
        while not held.jobs:
            held.add(await jobs.take(WINDOW, PATIENCE))
        begin = min(held.jobs.values())
        arguments = {"x-stream-offset": "first" if begin == _START else begin}
        log = await Consumer.open(self._link, self._log, prefetch=WINDOW, arguments=arguments)
        try:
            at = await self._copy_to_marker(log, jobs, held, begin, begin)
            await topology.bind(self._link, self._queue, self._exchange)
            await asyncio.sleep(GRACE)
            at = await self._copy_to_marker(log, jobs, held, begin, at)
        finally:
            await log.aclose()
        held.add(await jobs.take(WINDOW, 0))
        held.covered(begin, at + 1)
        return not held.jobs

    async def _copy_to_marker(
        self, log: Consumer, jobs: Consumer, held: _Held, begin: int, at: int
    ) -> int:
        """Copy what was in the log when this was called; return the next offset."""
        end = new_id()
        await self._publisher.publish_all([convert.mark(end, self._log)])
        arrived = False
        while not arrived:
            deliveries = await log.take(WINDOW, PATIENCE)
            if not deliveries and (error := jobs.error):
                raise error
            copies: list[Outgoing] = []
            for index, delivery in enumerate(deliveries):
                offset = convert.offset(delivery)
                if offset < at:
                    continue
                at = offset + 1
                name = convert.marker(delivery)
                if name is None:
                    copies.append(convert.copy(delivery, self._queue, message_id=str(offset)))
                elif name == end:
                    arrived = True
                    log.put_back(deliveries[index + 1 :])
                    del deliveries[index + 1 :]
            await self._publisher.publish_all(copies)
            if deliveries:
                await log.ack([delivery.tag for delivery in deliveries])
                await self._checkpoint(jobs, held, begin, at)
        return at

    async def _checkpoint(self, jobs: Consumer, held: _Held, begin: int, at: int) -> None:
        await self._publisher.publish_all([self._job(at)])
        held.add(await jobs.take(WINDOW, 0))
        await jobs.ack(held.covered(begin, at))

    def _job(self, offset: int) -> Outgoing:
        body = str(offset).encode()
        return convert.message_to(self._jobs, body)
