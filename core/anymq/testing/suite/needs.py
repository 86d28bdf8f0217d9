"""Marks for tests of optional capabilities, which check the refusal where one is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from ...broker import Broker
from ...errors import UnsupportedOperation

C = TypeVar("C", bound=type)


def needs(capability: str) -> Callable[[C], C]:
    """Mark every test of the decorated class as one that needs `capability`."""

    def mark(cls: C) -> C:
        for name, value in vars(cls).items():
            if name.startswith("test_"):
                pytest.mark.anymq_needs(capability)(value)
        return cls

    return mark


async def check_refusal(request: pytest.FixtureRequest, broker: Broker) -> None:
    """Check that the backend refuses a capability it lacks, then skip the test."""
    for marker in request.node.iter_markers("anymq_needs"):
        (capability,) = marker.args
        if not getattr(broker.capabilities, capability):
            with pytest.raises(UnsupportedOperation):
                await _REFUSED[capability](broker)
            pytest.skip(f"{capability}: refused, as declared")


async def _delay(broker: Broker) -> None:
    await broker.publish("anything", b"", delay=1)


async def _order(broker: Broker) -> None:
    broker.subscribe("anything", group="g", ordered=True)


async def _replay(broker: Broker) -> None:
    broker.subscribe("anything", group="g", start=datetime.now(UTC))


async def _describe(broker: Broker) -> None:
    await broker.publish("anything", b"")
    await broker.admin.describe("anything")


_REFUSED: dict[str, Callable[[Broker], Awaitable[None]]] = {
    "delayed_publish": _delay,
    "ordered": _order,
    "replay": _replay,
    "admin": _describe,
}
