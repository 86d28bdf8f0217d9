"""`Contestant`: one way to use one broker, which does the same work as all the others.

A contestant lives in a worker process of its own, and knows nothing of rounds, clocks or reports.
Every body begins with `HEAD`, by which whoever counts knows what was lost, repeated or reordered.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar

HEAD = struct.Struct("<HIq")
"""Producer, number (from 0 in each producer), and the time it was meant to be sent at (ns)."""

Handle = Callable[[bytes], None]
"""What consumers do with each body; the same trivial function for every contestant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTopic:
    """Where the work is done: a topic that nobody else uses, and a group on it."""

    url: str
    name: str
    group: str = "bench"
    partitions: int = 1
    ordered: bool = False
    """Whether the order of a key is to hold over all consumers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A message to publish. Without a key where the workload has none."""

    body: bytes
    key: str | None = None


class Publishing(ABC):
    """An open producer. Returning means: confirmed, as durably as `Contestant.durability` says."""

    @abstractmethod
    async def one(self, item: Item) -> None:
        """Publish one message; called from many tasks at once."""

    @abstractmethod
    async def many(self, items: Sequence[Item]) -> None:
        """Publish these by the fastest way that confirms each; called one after the other."""


class Contestant(ABC):
    """One way to use one broker. All methods are those of one process."""

    name: ClassVar[str]
    """`anymq`, `anymq+idempotency`, `raw`, `raw best`, `faststream`, `mq-bridge`, `native`."""
    backend: ClassVar[str]
    """`kafka`, `rabbitmq`, `nats`, `redis`, `sqlite`, `memory`."""
    durability: ClassVar[str]
    """What a confirmed message survives, in some words for the table."""
    how: ClassVar[str]
    """Which calls it makes, in some words for the report."""
    can: ClassVar[frozenset[str]]
    """The workloads it takes part in: `publish`, `publish_many`, `consume`, `typed`, `latency`…"""
    counted_by: ClassVar[str] = ""
    """Who reads what it publishes where consuming is not timed; itself, unless that takes long."""

    def __init__(self, topic: BenchTopic) -> None:
        self.topic = topic

    @classmethod
    def missing(cls) -> str | None:
        """Return what has to be installed for it, or None."""
        return None

    @abstractmethod
    async def prepare(self) -> None:
        """Make topic and group, durably, so that what is published now will be consumed."""

    @abstractmethod
    def publishing(self) -> AbstractAsyncContextManager[Publishing]:
        """Open a producer, and close it at the end of the context."""

    @abstractmethod
    async def consume(self, handle: Handle, done: Callable[[], bool], *, typed: bool) -> None:
        """Call `handle` for each message and ack it, until `done()`; then settle and close.

        `done` is asked after each message. Also ends when cancelled, with what was handled settled.
        `typed`: decode the body (JSON) as `benchmarks.speed.payload.Order` and hand its `head`.
        """
