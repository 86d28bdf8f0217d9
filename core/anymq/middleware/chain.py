"""Composition of middleware chains, and the fast path that skips links with nothing to do.

A `Handler` takes a delivery; returning is success, raising is failure. A `Middleware` takes a
handler and returns one. The first of a list is the outermost; a list is composed once, when
subscribing. The same shape wraps publishing. Middleware with settings is a frozen dataclass with
`__call__`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

from ..consuming.delivery import Delivery, Handler
from ..driver.store import Store
from ..message import Message, Receipt
from .acknowledge import Acknowledge

Middleware = Callable[[Handler], Handler]
Publish = Callable[[Message], Awaitable[Receipt]]
PublishMiddleware = Callable[[Publish], Publish]

F = TypeVar("F")


@runtime_checkable
class Passthrough(Protocol):
    """Middleware that may do nothing on a first attempt whose handler succeeds.

    If `passthrough` is True, the fast path skips it then. It acts only on retries and exceptions.
    """

    @property
    def passthrough(self) -> bool: ...

    def __call__(self, handler: Handler, /) -> Handler: ...


@runtime_checkable
class Observer(Protocol):
    """Middleware that observes deliveries, and changes nothing for the links inside.

    As the outermost links, observers stay outside of the fast path, which is taken as without them.
    """

    @property
    def observes(self) -> Literal[True]: ...

    def __call__(self, handler: Handler, /) -> Handler: ...


@runtime_checkable
class SplitAck(Protocol):
    """Middleware that can acknowledge a delivery by itself, later than its handler returns."""

    def split_ack(self, handler: Handler, /) -> tuple[Handler, Handler]:
        """Return the wrapped handler in two forms.

        The first returns when the message may be acknowledged. The second returns earlier, and
        acknowledges the message by `Delivery.completed`.
        """
        ...


def compose(middleware: Sequence[Callable[[F], F]], inner: F) -> F:
    """Return `inner` wrapped by `middleware`, the first outermost."""
    for wrap in reversed(middleware):
        inner = wrap(inner)
    return inner


def fast_path(middleware: Sequence[Middleware], inner: Handler) -> Handler:
    """Return `inner` wrapped by `middleware`, with a fast path for deliveries that succeed.

    On a first attempt, the fast path skips the outer links that are `Passthrough`. If the handler
    raises, the exception is raised again inside the full chain. If `Acknowledge` is skipped, the
    fast path acknowledges on success, or the next link does so if it has the form `SplitAck`.
    """
    if middleware and isinstance(middleware[0], Observer):
        return middleware[0](fast_path(middleware[1:], inner))
    count = 0
    while count < len(middleware) and _passes_through(middleware[count]):
        count += 1
    outer, rest = middleware[:count], middleware[count:]
    acknowledges = any(isinstance(link, Acknowledge) for link in outer)
    full_inner, fast, splits = _inner_forms(rest, inner, split=acknowledges)
    if not outer:
        return full_inner
    whole = compose(outer, full_inner)

    async def handle(delivery: Delivery) -> None:
        if delivery.cached_attempt != 1:
            await whole(delivery)
            return
        try:
            await fast(delivery)
        except BaseException as error:
            raised = error
        else:
            if acknowledges and not splits:
                delivery.completed()
            return
        await compose(outer, _raising_first(raised, full_inner))(delivery)

    return handle


def _passes_through(link: Middleware) -> bool:
    return isinstance(link, Passthrough) and link.passthrough


def _inner_forms(
    rest: Sequence[Middleware], inner: Handler, *, split: bool
) -> tuple[Handler, Handler, bool]:
    """Return the rest of the chain for the full and for the fast path, and whether it splits."""
    # A subclass may have changed `__call__` alone, so only the class itself has both forms.
    first: object = rest[0] if rest else None
    if split and "split_ack" in vars(type(first)) and isinstance(first, SplitAck):
        full, fast = first.split_ack(compose(rest[1:], inner))
        return full, fast, True
    composed = compose(rest, inner)
    return composed, composed, False


def _raising_first(raised: BaseException, handler: Handler) -> Handler:
    """Return a handler whose first call raises `raised`, the error of the call already made."""
    first = iter((raised,))

    async def resumed(delivery: Delivery) -> None:
        for error in first:
            raise error
        await handler(delivery)

    return resumed


def stores_of(middleware: Sequence[Middleware]) -> list[str | Store]:
    """Return the `stores` of all links, which are probed when a subscription is entered."""
    return [store for link in middleware for store in getattr(link, "stores", ())]
