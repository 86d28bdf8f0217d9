"""`DeadLetter`: moves rejected messages to a dead-letter topic."""

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
    """Middleware that moves a rejected delivery to `topic`, by default `{topic}.{group}.dlq`.

    A delivery is rejected by `raise Reject("why")`, by a payload that does not validate, or when
    its retries are exhausted. The rejection is logged with the traceback of the error. Unless
    `traceback` is False, the letter has the end of that traceback, at most 4 KiB. A traceback
    quotes code and the error's text; that of a payload that does not validate is left out, because
    it may quote the body. A requester that awaits a reply to a rejected request gets
    `RequestFailed`.
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
                    _log_settled(delivery, signal.reason)
                    return
                log.seldom(
                    ("dead letter", delivery.topic, delivery.group),
                    WARNING,
                    "message %s from %s (group %s) rejected at attempt %d: %s; "
                    "moving to the dead-letter topic",
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


def _log_settled(delivery: Delivery, reason: str) -> None:
    log.seldom(
        ("rejected too late", delivery.topic, delivery.group),
        WARNING,
        "message %s from %s (group %s) rejected after its %s: %s; it is not dead-lettered",
        delivery.message.id,
        delivery.topic,
        delivery.group,
        delivery.verb,
        reason,
    )
