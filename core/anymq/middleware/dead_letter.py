"""Move what was rejected to the dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from logging import WARNING
from typing import ClassVar

from ..consuming.delivery import Delivery, Handler
from ..errors import Reject, Unreadable
from ..logs import logger
from ..names import check_topic

log = logger("anymq.dead_letters")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Send a rejected delivery to `topic`, by default `{topic}.{group}.dlq`, and say so in the log,
    with the traceback of the error that it failed with.

    A delivery is rejected by `raise Reject("why")`, by a payload that does not validate, or when
    `Retry` gives up. The letter has the end of that traceback, at most 4 KiB, unless `traceback` is
    off: it quotes code and what the error says, but no body that does not validate. Whoever awaits
    the reply to a rejected request gets `RequestFailed`.
    """

    topic: str | None = None
    traceback: bool = True
    passthrough: ClassVar[bool] = True
    """See `Passthrough`."""

    def __post_init__(self) -> None:
        if self.topic is not None:
            check_topic(self.topic)

    def __call__(self, handler: Handler) -> Handler:
        async def dead_letter(delivery: Delivery) -> None:
            try:
                await handler(delivery)
            except Reject as signal:
                if delivery.settled:
                    _say_settled(delivery, signal.reason)
                    return
                log.seldom(
                    ("dead letter", delivery.topic, delivery.group),
                    WARNING,
                    "dead letter: %s from %s (group %s, attempt %d): %s",
                    delivery.message.id,
                    delivery.topic,
                    delivery.group,
                    delivery.attempt,
                    signal.reason,
                    exc_info=None if isinstance(signal, Unreadable) else signal.__cause__,
                )
                await delivery.reject(
                    signal.reason,
                    error=signal.__cause__,
                    topic=self.topic,
                    traceback=self.traceback and not isinstance(signal, Unreadable),
                )
                await delivery.refuse(signal.reason)

        return dead_letter


def _say_settled(delivery: Delivery, reason: str) -> None:
    log.seldom(
        ("rejected too late", delivery.topic, delivery.group),
        WARNING,
        "%s from %s (group %s) was rejected after its %s: it goes nowhere; the reason was: %s",
        delivery.message.id,
        delivery.topic,
        delivery.group,
        delivery.verb,
        reason,
    )
