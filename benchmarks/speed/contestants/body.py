"""Handlers of bodies, with the decoder of a typed workload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..contestant import Handle
from ..payload import Order

Handler = Callable[..., Awaitable[None]]


def reader(handle: Handle, *, typed: bool) -> Handle:
    """Return the function to call with each body: `handle`, after a decoder if `typed`."""
    if not typed:
        return handle

    def read(body: bytes) -> None:
        handle(Order.model_validate_json(body).head)

    return read


def subscriber(
    handle: Handle, done: Callable[[], bool], *, typed: bool
) -> tuple[Handler, asyncio.Event]:
    """Return a handler for a framework that decodes bodies, and an event set once `done()`."""
    enough = asyncio.Event()

    def take(body: bytes) -> None:
        handle(body)
        if done():
            enough.set()

    async def on_body(body: bytes) -> None:
        take(body)

    async def on_order(order: Order) -> None:
        take(order.head)

    return (on_order if typed else on_body), enough
