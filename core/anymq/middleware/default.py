"""The default middleware chain, and the properties of a chain that a subscription needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..consuming.delivery import Handler
from ..driver.store import Store
from .acknowledge import Acknowledge
from .chain import Middleware, fast_path, stores_of
from .dead_letter import DeadLetter
from .deadline import Deadline
from .retry import Retry

DEFAULT_CHAIN: tuple[Middleware, ...] = (Acknowledge(), DeadLetter(), Retry(), Deadline())
"""The middleware around a handler, unless the subscription names others."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The middleware of one subscription, and the settings that the subscription reads from it."""

    links: Sequence[Middleware]

    @property
    def stores(self) -> list[str | Store]:
        """The stores to probe before the subscription is entered."""
        return stores_of(self.links)

    @property
    def letter_topics(self) -> list[str]:
        """The dead-letter topics that links name; empty if only the default is used."""
        return [link.topic for link in self.links if isinstance(link, DeadLetter) and link.topic]

    @property
    def deadline(self) -> float | None:
        """The shortest `Deadline` that the subscription enforces, in seconds."""
        found = [
            link.seconds for link in self.links if isinstance(link, Deadline) and link.passthrough
        ]
        return min(found, default=None)

    @property
    def limit(self) -> float | None:
        """The shortest `Deadline`, in seconds."""
        found = [link.seconds for link in self.links if isinstance(link, Deadline)]
        return min(found, default=None)

    def around(self, handler: Handler) -> Handler:
        """Return `handler` wrapped by the links, with a fast path for deliveries that succeed."""
        return fast_path(self.links, handler)
