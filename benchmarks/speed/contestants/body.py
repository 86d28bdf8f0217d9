"""How a consumer reads a body."""

from __future__ import annotations

from ..contestant import Handle
from ..payload import Order


def reader(handle: Handle, *, typed: bool) -> Handle:
    """Return what to call with each body: `handle`, behind a decoder where it is `typed`."""
    if not typed:
        return handle

    def read(body: bytes) -> None:
        handle(Order.model_validate_json(body).head)

    return read
