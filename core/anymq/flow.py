"""`correlation` and `current_delivery`: the flow of messages that the running code belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .consuming.delivery import Flow, current, current_delivery
from .ids import new_id
from .names import check_attribute

__all__ = ["correlation", "current_delivery"]


@contextmanager
def correlation(id: str | None = None) -> Iterator[str]:
    """Have everything that is published inside carry the correlation id `id`, by default a new one.

    ::

        with anymq.correlation(request_id):
            await broker.publish("orders", order)

    It applies to the calls inside and to the tasks that they start, until another `correlation`
    inside it. In a handler it replaces the correlation id of the handled message, which stays the
    cause. The argument `correlation_id` of a publish comes first. Yields the id.
    """
    chosen = new_id() if id is None else check_attribute("correlation id", id)
    token = current.set(Flow(chosen, current_delivery()))
    try:
        yield chosen
    finally:
        current.reset(token)
