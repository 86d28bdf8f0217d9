"""`Contestant`: one way to use one broker, doing the same work as every other contestant.

A contestant runs in a worker process and does not depend on rounds, timing or reports. Every body
begins with `HEAD`, from which losses, duplicates and reorders are counted.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar

HEAD = struct.Struct("<HIq")
"""Producer, number (from 0 in each producer) and intended send time in ns."""

Handle = Callable[[bytes], None]
"""The handler of each body; the same trivial function for every contestant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTopic:
    """The topic and group of one measurement, and the URL of their broker."""

    url: str
    name: str
    group: str = "bench"
    partitions: int = 1
    ordered: bool = False
    """Whether the group is ordered by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A message to publish; the key is None in a workload without keys."""

    body: bytes
    key: str | None = None


class Publishing(ABC):
    """An open producer. Its methods return once messages are confirmed with `durability`."""

    @abstractmethod
    async def one(self, item: Item) -> None:
        """Publish one message; called concurrently from many tasks."""

    @abstractmethod
    async def many(self, items: Sequence[Item]) -> None:
        """Publish messages by the fastest call that confirms each; never called concurrently."""


class Contestant(ABC):
    """One way to use one broker, within one process."""

    name: ClassVar[str]
    """`anymq`, `anymq+idempotency`, `raw`, `raw best`, `faststream`, `mq-bridge`, `native`."""
    backend: ClassVar[str]
    """`kafka`, `rabbitmq`, `nats`, `redis`, `sqlite`, `memory`."""
    durability: ClassVar[str]
    """Durability of a confirmed message, as shown in the table."""
    how: ClassVar[str]
    """The calls it makes, as shown in the report."""
    can: ClassVar[frozenset[str]]
    """Its abilities: `publish`, `publish_many`, `consume`, `typed`, `latency`, `ordered`."""
    counted_by: ClassVar[str] = ""
    """Faster contestant that consumes its messages if that is not timed; empty for itself."""

    def __init__(self, topic: BenchTopic) -> None:
        self.topic = topic

    @classmethod
    def missing(cls) -> str | None:
        """Return the requirements that are not installed, or None."""
        return None

    @abstractmethod
    async def prepare(self) -> None:
        """Create topic and group durably, so that messages published from now on are consumed."""

    @abstractmethod
    def publishing(self) -> AbstractAsyncContextManager[Publishing]:
        """Open a producer, and close it on exit from the context."""

    @abstractmethod
    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        """Call `handle` for each message and acknowledge it until `done()`; then settle and close.

        `done` is called after each message. If cancelled, settle the handled messages before
        ending. With `typed`, decode the JSON body as a `payload.Order` and pass on its `head`.
        """
