"""Middleware: functions that wrap a handler.

A `Handler` takes a delivery; returning is success, raising is failure. A `Middleware` takes a
handler and returns one. The first of a list is the outermost; the list is composed once, when
subscribing. The same shape wraps publishing. Those with settings are frozen dataclasses with
`__call__`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..delivery import Delivery
from ..message import Message, Receipt

Handler = Callable[[Delivery], Awaitable[None]]
Middleware = Callable[[Handler], Handler]
Publish = Callable[[Message], Awaitable[Receipt]]
PublishMiddleware = Callable[[Publish], Publish]

F = TypeVar("F")


def compose(middleware: Sequence[Callable[[F], F]], inner: F) -> F:
    """Return `inner` wrapped by `middleware`, the first outermost."""
    for wrap in reversed(middleware):
        inner = wrap(inner)
    return inner


from .acknowledge import Acknowledge  # noqa: E402
from .dead_letter import DeadLetter  # noqa: E402
from .deadline import Deadline  # noqa: E402
from .idempotency import Idempotency  # noqa: E402
from .kill_switch import KillSwitch  # noqa: E402
from .rate_limit import RateLimit  # noqa: E402
from .retry import Retry  # noqa: E402

__all__ = [
    "Acknowledge",
    "DeadLetter",
    "Deadline",
    "Handler",
    "Idempotency",
    "KillSwitch",
    "Middleware",
    "Publish",
    "PublishMiddleware",
    "RateLimit",
    "Retry",
    "compose",
]
