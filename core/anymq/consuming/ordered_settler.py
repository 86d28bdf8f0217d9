"""`OrderedSettler`: settlement for a member of an ordered group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from ..driver.records import Due, Nack, Received
from ..driver.source import OrderedSource
from ..logs import logger
from .dead_letter_writer import PendingLetter
from .delivery import Delivery
from .member_settler import MemberSettler
from .settler import SettlerSettings

log = logger("anymq.consumer")


class OrderedSettler(MemberSettler[OrderedSource]):
    """The settler of one source of an ordered group.

    A delivery that failed stays with this member: its next attempt holds the key.
    """

    def __init__(self, source: OrderedSource, settings: SettlerSettings) -> None:
        super().__init__(source, settings)
        self._keeps: list[Nack] = []

    def ack(self, delivery: Delivery) -> None:
        is_held = delivery in self._held
        super().ack(delivery)
        if is_held:
            self._inbox.freed(delivery)

    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        self._keep(delivery, delay, attempt)

    def release(self, delivery: Delivery) -> None:
        self._keep(delivery, 0.0, delivery.attempt)

    def stop(self, delivery: Delivery, reason: str) -> None:
        if delivery in self._held:
            self._inbox.stop_key(delivery, reason)
            key = delivery.message.key
            log.error(
                "key %r of %s (group %s) stopped at message %s: %s; "
                "call Subscription.restart(%r) to continue",
                key,
                self.topic,
                self.group,
                delivery.message.id,
                reason,
                key,
            )

    def restart(self, delivery: Delivery) -> None:
        self._keep(delivery, 0.0, 1)

    def wait_out(self, delivery: Delivery) -> None:
        due = delivery.received.not_before
        assert due is not None
        self._dispatch_after(due.left(self.clock.now()), delivery)

    def _keep(self, delivery: Delivery, delay: float, attempt: int) -> None:
        """Let the next attempt hold the key from now on, and dispatch it after `delay`."""
        if delivery not in self._held:
            if attempt > delivery.attempt:
                self._settled_late([delivery], attempt)
            return
        if attempt > delivery.attempt or delay > 0:
            nack = self._nack(delivery, delay, attempt)
            nack.due = Due(self.clock.now() + delay, delay) if delay > 0 else None
            self._keeps.append(nack)
            self._start_flush()
        del self._held[delivery]
        (again,) = self.hold([delivery.received])
        again.set_attempt(attempt)
        self._inbox.kept(delivery, again)
        if delay <= 0:
            self._inbox.again(again)
        else:
            self._dispatch_after(delay, again)

    def _dispatch_after(self, delay: float, delivery: Delivery) -> None:
        async def dispatch() -> None:
            await self.clock.sleep(delay)
            self._inbox.again(delivery)

        self._later(dispatch(), delivery)

    def _free(self, delivery: Delivery) -> None:
        self._inbox.freed(delivery)

    def _has_queued(self) -> bool:
        return bool(self._keeps) or super()._has_queued()

    async def _flush_failed(self) -> Sequence[Nack]:
        keeps, self._keeps = self._keeps, []
        if keeps:
            await self._apply("keep", partial(self.source.keep, keeps))
        return ()

    def _discard_queued(self) -> None:
        super()._discard_queued()
        self._keeps = []

    def _dropped(
        self, acks: Sequence[Received], nacks: Sequence[Nack], rejects: Sequence[PendingLetter]
    ) -> set[Received]:
        if self.source.silence is None:
            self.expired(())
            return {record for record in acks if not self.source.owns(record)}
        if self.clock.monotonic() <= self.good_until:
            return self._doubtful
        return {*acks, *(item.rejected.received for item in rejects)}

    # Ownership.

    @property
    def _certain(self) -> float:
        return self.source.silence or 0.0

    def expired(self, waiting: Iterable[Delivery]) -> list[Delivery]:
        if self.source.silence is not None:
            return list(waiting) if self._stalled() else []
        self.good_until = self.source.certain_until()
        owns = self.source.owns
        self._doubtful = {item for item in self._unsent() if not owns(item)}
        self._doubtful.update(d.received for d in self._held if not owns(d.received))
        return [item for item in waiting if not owns(item.received)]

    def is_expired(self, delivery: Delivery) -> bool:
        if self.source.silence is not None:
            return self.clock.monotonic() > self.good_until
        return not self.source.owns(delivery.received)

    def drop_expired(self, deliveries: Sequence[Delivery]) -> None:
        gone = set(deliveries)
        self.discard(lambda item: item in gone)
