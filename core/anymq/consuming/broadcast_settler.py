"""`BroadcastSettler`: settlement for a broadcast subscription, in this process's memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..driver.records import Rejected
from ..driver.source import Reader
from .delivery import Delivery
from .settler import BaseSettler, SettlerSettings


class BroadcastSettler(BaseSettler[Reader]):
    """The settler of a broadcast subscription, for each of its successive readers.

    Nothing is settled at the broker, which redelivers nothing. So the deliveries stay when a reader
    is lost, and failed ones are redelivered from memory.
    """

    def __init__(self, source: Reader, settings: SettlerSettings) -> None:
        super().__init__(source, settings)
        self._stored: set[int] = set()
        """Stored letters of a call in which other letters failed."""

    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        self._redeliver(delivery, delay, attempt)

    def release(self, delivery: Delivery) -> None:
        self._redeliver(delivery, 0.0, delivery.attempt)

    def _redeliver(self, delivery: Delivery, delay: float, attempt: int) -> None:
        if delivery not in self._held:
            return
        del self._held[delivery]
        received = delivery.received
        self._forget([received])

        async def redeliver() -> None:
            await self.clock.sleep(delay)
            (again,) = self.hold([received])
            again.set_attempt(attempt)
            self._inbox.redeliver(again)

        self._later(redeliver(), None)

    async def _flush(self) -> None:
        acks, self._acks = self._acks, []
        rejects, self._rejects = self._rejects, []
        if rejects:
            await self._letters.write(rejects)
        self._forget(acks)

    async def _reject(self, rejects: Sequence[Rejected]) -> None:
        """Store the letters, each once, and raise the first failure."""
        left = [item for item in rejects if id(item) not in self._stored]
        outcomes = await self._context.driver.publish([item.letter for item in left])
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        self._stored.update(
            id(item)
            for item, outcome in zip(left, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        )
        for failure in failures:
            raise failure
        self._stored.difference_update(map(id, rejects))
