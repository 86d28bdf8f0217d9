"""Settle a delivery by what its handler did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from ..consuming.delivery import Delivery, Handler
from ..errors import Reject, RetryAfter, StopLane, Unreadable
from ..logs import logger
from ..tasks import told_to_end

log = logger("anymq.consumer")


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Return = ack, raise = nack after `delay` seconds, cancelled = release.

    `when="success"` (the default) is at-least-once. `"receipt"` acks before the handler runs, so
    that no failure of the handler is retried. That is not at most once: the ack is sent some
    milliseconds later, and a process that dies before has the message handled again; one that dies
    after it has lost the message. `"manual"` leaves settling to the handler; only a
    delivery whose handler raised or was cancelled is still given back here.
    """

    when: Literal["success", "receipt", "manual"] = "success"
    delay: float = 1.0

    @property
    def passthrough(self) -> bool:
        """See `Passthrough`."""
        return self.when == "success"

    def __call__(self, handler: Handler) -> Handler:
        when, delay = self.when, self.delay

        async def acknowledge(delivery: Delivery) -> None:
            if when == "receipt":
                await delivery.ack()
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                if told_to_end() and not delivery.settled:
                    await delivery.release()
                raise
            except RetryAfter as signal:
                if not delivery.settled:
                    await delivery.nack(signal.delay, counted=signal.counted)
            except Reject as signal:
                if not delivery.settled:
                    await delivery.reject(
                        signal.reason,
                        error=signal.__cause__,
                        traceback=not isinstance(signal, Unreadable),
                    )
            except StopLane as signal:
                if not delivery.settled:
                    await delivery.stop(signal.reason)
            except Exception:
                log.exception("handling %s from %s failed", delivery.message.id, delivery.topic)
                if not delivery.settled:
                    await delivery.nack(delay)
            else:
                if when == "success" and not delivery.settled:
                    await delivery.ack()

        return acknowledge
