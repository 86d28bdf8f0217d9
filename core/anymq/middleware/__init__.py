"""Middleware: functions that wrap a handler.

A `Handler` takes a delivery; returning is success, raising is failure. A `Middleware` takes a
handler and returns one. The first of a list is the outermost; the list is composed once, when
subscribing. The same shape wraps publishing. Those with settings are frozen dataclasses with
`__call__`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..consuming.delivery import Delivery
from ..lazy_import import lazy_attributes
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


def stores_of(middleware: Sequence[Middleware]) -> list[str | Store]:
    """Return the stores that links name as their `stores`: tried when a subscription is entered."""
    return [store for link in middleware for store in getattr(link, "stores", ())]


def letter_topics_of(middleware: Sequence[Middleware]) -> list[str]:
    """Return the topics of dead letters that links name; empty if there is only the default."""
    return [link.topic for link in middleware if isinstance(link, DeadLetter) and link.topic]


def shorten(middleware: Sequence[Middleware], inner: Handler) -> Handler:
    """Return what `compose` does, without the links that do nothing as long as nothing goes wrong.

    These are the outer ones that call themselves `quiet`: on a first attempt they only pass on what
    comes, and react to what is raised. When something is raised they are put around it as usual.
    The first of the others may be `paired`: it has a form that acknowledges by itself, later.
    """
    count = 0
    while count < len(middleware) and getattr(middleware[count], "quiet", False):
        count += 1
    quiet, rest = middleware[:count], middleware[count:]
    acknowledges = any(isinstance(link, Acknowledge) for link in quiet)
    paired = getattr(rest[0], "paired", None) if acknowledges and _pairs(rest) else None
    if paired is None:
        loud = last = compose(rest, inner)
    else:
        loud, last = paired(compose(rest[1:], inner))
    if not quiet:
        return loud
    whole = compose(quiet, loud)

    async def handle(delivery: Delivery) -> None:
        if delivery.counted != 1:
            await whole(delivery)
            return
        try:
            await last(delivery)
        except BaseException as error:
            raised = error
        else:
            if acknowledges and paired is None:
                delivery.done()
            return
        await compose(quiet, _beginning(raised, loud))(delivery)

    return handle


def _pairs(middleware: Sequence[Middleware]) -> bool:
    """Whether the first has two forms; a subclass may have changed the one it is called for."""
    return bool(middleware) and "paired" in vars(type(middleware[0]))


def _beginning(raised: BaseException, handler: Handler) -> Handler:
    """Return a handler whose first call has been made already, and `raised`."""
    first = iter((raised,))

    async def resumed(delivery: Delivery) -> None:
        for error in first:
            raise error
        await handler(delivery)

    return resumed


from .acknowledge import Acknowledge  # noqa: E402
from .dead_letter import DeadLetter  # noqa: E402
from .deadline import Deadline  # noqa: E402
from .retry import NoRetry, Retry  # noqa: E402

DEFAULT_CHAIN: tuple[Middleware, ...] = (Acknowledge(), DeadLetter(), Retry(), Deadline())
"""What is around a handler unless the subscription says otherwise."""

if TYPE_CHECKING:
    from ..driver.store import Store
    from .idempotency import Idempotency
    from .kill_switch import KillSwitch
    from .rate_limit import RateLimit

__all__ = [
    "DEFAULT_CHAIN",
    "Acknowledge",
    "DeadLetter",
    "Deadline",
    "Handler",
    "Idempotency",
    "KillSwitch",
    "Middleware",
    "NoRetry",
    "Publish",
    "PublishMiddleware",
    "RateLimit",
    "Retry",
    "compose",
    "shorten",
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
