"""`TopicAccess`: calls of the driver about topics, bounded in time and with translated errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..driver.base import Driver
from ..driver.info import TopicInfo
from ..driver.specs import Start, TopicSpec
from ..errors import ConnectionLost, UnsupportedOperation
from ..message import Message
from ..publishing.declarations import Declarations
from ..tasks import fault
from ..topic import Topic, as_topic
from ..wire.cloudevents import decode
from .settlement_log import SUFFIX, settlement_log_spec

T = TypeVar("T")

CALL_TIMEOUT = 60.0
"""Seconds after which a call without an answer raises `ConnectionLost`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as it is stored in its topic."""

    position: str
    partition: int
    message: Message


class TopicAccess:
    """The calls that administration and dead letters share."""

    def __init__(
        self,
        driver: Driver,
        declarations: Declarations,
        translate: Callable[[BaseException, str], BaseException],
    ) -> None:
        self.driver = driver
        self.declarations = declarations
        self._translate = translate

    def spec(self, topic: str | Topic[Any]) -> TopicSpec:
        """Return the topic as the driver gets it, or a settlement log by its name."""
        if isinstance(topic, str) and topic.endswith(SUFFIX):
            return settlement_log_spec(self.spec(topic.removesuffix(SUFFIX)))
        target = as_topic(topic)
        self.declarations.learn(target)
        return self.declarations.spec(target.name)

    async def call(self, work: Awaitable[T], doing: str) -> T:
        """Return the result of `work`, within `CALL_TIMEOUT`."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return await work
        except TimeoutError as late:
            raise ConnectionLost(f"{doing} did not end in time") from late
        except UnsupportedOperation:
            raise
        except BaseException as raw:
            error = self._translate(fault(raw, "the client library"), doing)
            if error is raw:
                raise
            raise error from raw

    async def describe(self, spec: TopicSpec) -> TopicInfo:
        """Return the statistics of a topic."""
        found = await self.call(self.driver.describe_topic(spec), f"describing {spec.name}")
        return replace(found, name=spec.name)

    async def browse(
        self, spec: TopicSpec, start: Start = "earliest"
    ) -> AsyncGenerator[Stored, None]:
        """Yield the messages of a topic from `start` to its end as of now; settle nothing."""
        doing = f"browsing {spec.name}"
        batches = self.driver.browse(spec, start)
        try:
            while True:
                records = await self.call(anext(batches, None), doing)
                if records is None:
                    return
                for received in records:
                    message = decode(received, self.driver.binding, spec.name)
                    yield Stored(
                        position=received.position, partition=received.partition, message=message
                    )
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await self.call(close(), doing)
