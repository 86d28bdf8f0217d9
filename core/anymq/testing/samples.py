"""What the core would hand to a driver, made by hand: for tests of the driver itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..cloudevents import attempt_of
from ..driver import (
    ATTEMPT,
    Nack,
    Received,
    Record,
    Rejected,
    Source,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from ..stamp import new_id


class Samples:
    """Specs, records and settlements, all of them about one topic.

    `id_header` is the header that carries a message's id: `Driver.binding.id`.
    """

    id_header: str = "ce-id"

    def __init__(self, name: str) -> None:
        self.name = name

    def topic(self, name: str | None = None, **values: Any) -> TopicSpec:
        """The topic, or another one."""
        values.setdefault("native", name or self.name)
        return TopicSpec(name=name or self.name, **values)

    def spec(
        self,
        group: str | None = "billing",
        *,
        start: Start = "earliest",
        lease: float = 30.0,
        topic: TopicSpec | None = None,
        native_group: str | None = None,
        create: bool = True,
        ordered: bool = False,
        place: object = None,
    ) -> SubscribeSpec:
        """A subscription of a new member."""
        chosen = topic or self.topic()
        return SubscribeSpec(
            topic=chosen,
            group=group,
            native_group=native_group or f"{chosen.name}.{group}",
            start=start,
            ack_deadline=lease,
            prefetch=100,
            member=new_id(),
            create=create,
            ordered=ordered,
            place=place,
        )

    def record(self, body: bytes | int = b"", *, name: str | None = None, **values: Any) -> Record:
        """A new message."""
        identity = new_id()
        return Record(
            topic=name or self.name,
            id=identity,
            unique=values.pop("unique", identity),
            body=b"%d" % body if isinstance(body, int) else body,
            headers={self.id_header: identity, **values.pop("headers", {})},
            **values,
        )

    def records(self, count: int, **values: Any) -> list[Record]:
        """New messages whose bodies are the numbers from 0 on."""
        return [self.record(number, **values) for number in range(count)]

    def nack(self, received: Received, delay: float = 0.0, *, counted: bool = True) -> Nack:
        """What the core makes of a nack, or of a release if it is not `counted`."""
        current = attempt(received)
        shown = current + 1 if counted else current
        copy = self.copy(received, shown)
        return Nack(received, delay, shown, native_attempt=current + 1, copy=copy)

    def copy(self, received: Received, shown: int) -> Record:
        """What a backend that cannot redeliver publishes instead."""
        headers = {**received.headers, ATTEMPT: str(shown)}
        return Record(
            topic=self.name, id=new_id(), unique=new_id(), body=received.body, headers=headers
        )

    def rejected(self, received: Received, name: str | None = None) -> Rejected:
        """The record, and a letter for its dead-letter topic."""
        letter = self.record(received.body, name=name or f"{self.name}.billing.dlq")
        return Rejected(received, letter)


def attempt(received: Received) -> int:
    """The attempt that the core would show."""
    return attempt_of(received)


def contents(received: Sequence[Received]) -> list[bytes]:
    """The bodies, in order."""
    return [item.body for item in received]


async def drain(source: Source, count: int, *, seconds: float = 10.0) -> list[Received]:
    """Receive until there are `count` records or `seconds` are over."""
    got: list[Received] = []
    deadline = time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        got += await source.receive(count - len(got), 0.5)
    return got


async def receive(source: Source, count: int, *, seconds: float = 30.0) -> list[Received]:
    """Receive exactly `count` records."""
    got = await drain(source, count, seconds=seconds)
    assert len(got) == count, contents(got)
    return got


async def nothing(source: Source, wait: float = 0.0) -> bool:
    """Whether there is nothing to receive."""
    return not await source.receive(100, wait)
