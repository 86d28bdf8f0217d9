"""Decoding of bodies by consumers."""

from __future__ import annotations

from ..contestant import Handle
from ..payload import Order


def reader(handle: Handle, *, typed: bool) -> Handle:
    """Return the function to call with each body: `handle`, after a decoder if `typed`."""
    if not typed:
        return handle

    def read(body: bytes) -> None:
        handle(Order.model_validate_json(body).head)

    return read
