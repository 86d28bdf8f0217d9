"""`SourceListener`: the calls of a source, carried out for its subscription."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..driver.clock import Clock
from ..driver.listener import Listener
from ..driver.records import Received
from ..logs import logger
from .buffer import DeliveryBuffer
from .delivery import Delivery
from .key_lanes import KeyLanes
from .late_settlements import DONE
from .settler import AnySettler
from .workers import Workers

log = logger("anymq.consumer")


class SourceListener(Listener):
    """Discards partitions that move to another member, and notes what a source reports."""

    def __init__(
        self, buffer: DeliveryBuffer, workers: Workers, clock: Clock, ack_deadline: float
    ) -> None:
        self._buffer = buffer
        self._workers = workers
        self._clock = clock
        self._ack_deadline = ack_deadline

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        """Stop handling `partitions`.

        Buffered deliveries and those that wait for a retry are discarded. Handlers may finish
        within a third of `ack_deadline`, then they are cancelled; at once if the partitions are
        `gone` already.
        """
        settler, lanes = self._buffer.settler, self._buffer.lanes
        if settler is not None and lanes is not None:
            patience = 0.0 if gone else self._ack_deadline / 3
            await self._discard(settler, lanes, partitions, patience)

    async def discard_all(self, settler: AnySettler) -> None:
        """Discard the buffered deliveries of a lost source: the broker redelivers them.

        Handlers of an ordered subscription are cancelled, because their partitions are lost.
        """
        if self._buffer.lanes is not None:
            await self._discard(settler, self._buffer.lanes, None, 0.0)
            return
        await self._buffer.run_release_calls()
        self._buffer.drop(lambda delivery: delivery.belongs_to(settler))

    async def _discard(
        self,
        settler: AnySettler,
        lanes: KeyLanes,
        partitions: frozenset[int] | None,
        patience: float,
    ) -> None:
        """Discard the deliveries of `partitions` (None: all), after `patience` seconds."""

        def revoked(delivery: Delivery) -> bool:
            of_them = partitions is None or delivery.partition in partitions
            return of_them and delivery.belongs_to(settler)

        def unsettled() -> set[Delivery]:
            dispatched = self._buffer.dispatched()
            return {item for item in dispatched if revoked(item) and not item.settled}

        gone = {*lanes.drop(revoked), *filter(revoked, settler.waiting())}
        settler.discard(lambda item: item in gone)
        until = self._clock.monotonic() + patience
        while unsettled():
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            self._buffer.key_freed.clear()
            await self._clock.wait(self._buffer.key_freed, min(left, 0.5))
        await self._buffer.run_release_calls()
        late = unsettled()
        settler.discard(revoked)
        for item in [item for item in lanes.out if revoked(item)]:
            lanes.free(item)
            self._buffer.stopped.pop(item, None)
        await self._workers.cancel(late)
        if patience > 0:
            await settler.flushed()

    def skipped(self, after: str, before: str) -> None:
        log.warning(
            "broadcast on %s skipped the messages after %s and before %s: they were deleted (by "
            "retention, or a purge) before they were read; continuing with the oldest",
            self._buffer.topic,
            after,
            before or "now",
        )

    def dropped(self, records: Sequence[Received]) -> None:
        settler = self._buffer.settler
        if settler is not None and settler.group is not None:
            self._buffer.note_late([Delivery(record, settler, 0.0) for record in records], DONE)

    def unreadable(self, records: Sequence[Received], reason: str) -> None:
        settler = self._buffer.settler
        assert settler is not None
        self._buffer.credit.take(len(records), sum([len(record.body) for record in records]))
        for delivery in settler.hold(records):
            log.seldom(
                ("unreadable", self._buffer.topic, self._buffer.group),
                logging.WARNING,
                "message at %s of %s (group %s) is unreadable: %s; moving it to the dead letters",
                delivery.position,
                self._buffer.topic,
                self._buffer.group,
                reason,
            )
            delivery.verb = "reject"
            settler.reject(delivery, reason, None, None, False)
