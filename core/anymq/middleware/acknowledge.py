"""`Acknowledge`: settles a delivery by the outcome of its handler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from ..consuming.delivery import Delivery, Handler
from ..errors import Reject, RetryAfter, StopLane, Unreadable
from ..logs import logger
from ..tasks import is_cancelled

log = logger("anymq.consumer")


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Middleware that settles a delivery by the outcome of its handler.

    If the handler returns, the delivery is acknowledged. If it raises, the delivery is negatively
    acknowledged with `delay` seconds. If it is cancelled, the delivery is released.

    `when="success"` (the default) is at-least-once. `"receipt"` acks before the handler runs, so
    a failed handler is not retried. That is not at-most-once: the ack is sent some milliseconds
    later. If the process dies before, the message is redelivered; if it dies after, the message is
    lost. With `"manual"` the handler settles the delivery, unless it raises or is cancelled.
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
                if is_cancelled() and not delivery.settled:
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
                log.exception(
                    "handler failed for message %s from %s (group %s, attempt %d)",
                    delivery.message.id,
                    delivery.topic,
                    delivery.group,
                    delivery.attempt,
                )
                if not delivery.settled:
                    await delivery.nack(delay)
            else:
                if when == "success" and not delivery.settled:
                    await delivery.ack()

        return acknowledge
