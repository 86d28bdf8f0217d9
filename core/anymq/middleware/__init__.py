"""Middleware: functions that wrap a handler. See `anymq.middleware.chain` for the types."""

from typing import TYPE_CHECKING

from ..consuming.delivery import Consumer, Handler
from ..lazy_import import lazy_attributes
from .acknowledge import Acknowledge
from .chain import (
    Middleware,
    Passthrough,
    Publish,
    PublishMiddleware,
    SplitAck,
    compose,
    stores_of,
)
from .dead_letter import DeadLetter
from .deadline import Deadline
from .default import DEFAULT_CHAIN
from .retry import NoRetry, Retry

if TYPE_CHECKING:
    from .idempotency import Idempotency
    from .kill_switch import KillSwitch
    from .rate_limit import RateLimit

__all__ = [
    "DEFAULT_CHAIN",
    "Acknowledge",
    "Consumer",
    "DeadLetter",
    "Deadline",
    "Handler",
    "Idempotency",
    "KillSwitch",
    "Middleware",
    "NoRetry",
    "Passthrough",
    "Publish",
    "PublishMiddleware",
    "RateLimit",
    "Retry",
    "SplitAck",
    "compose",
    "stores_of",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Idempotency": "idempotency",
        "KillSwitch": "kill_switch",
        "RateLimit": "rate_limit",
    },
)
