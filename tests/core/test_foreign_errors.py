"""Errors of client libraries: every call translates them to errors of anymq."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from anymq import Broker
from anymq.connect import connect
from anymq.driver import Listener, Reader, Received, Start, SubscribeSpec, TopicSpec
from anymq.driver.registry import register
from anymq.errors import AnymqError
from anymq.testing.tools import take

from .faulty import Panic
from .scripted import Lost, Refused, ScriptedDriver, ScriptedSource

ERRORS: dict[str, Callable[[], BaseException]] = {
    "lost": lambda: Lost("x"),
    "refused": lambda: Refused("x"),
    "os": lambda: ConnectionResetError("x"),
    "timeout": lambda: TimeoutError("x"),
    "cancelled": asyncio.CancelledError,
    "panic": lambda: Panic("x"),
}


class ForeignDriver(ScriptedDriver):
    """A driver that raises `error` from every call once it is set."""

    error: Callable[[], BaseException] | None = None

    def fail(self) -> None:
        if self.error is not None:
            raise self.error()

    async def refuse(self, *_: Any, **__: Any) -> Any:
        self.fail()
        raise AssertionError("set an error first")

    async def ping(self) -> None:
        self.fail()

    async def declare(self, topic: TopicSpec) -> None:
        self.fail()

    async def publish(self, records: Sequence[Any]) -> Sequence[Any]:
        self.fail()
        return await super().publish(records)

    async def subscribe(self, spec: SubscribeSpec, listener: Listener) -> Reader:
        self.fail()
        source = ForeignSource(spec, listener)
        source.driver = self
        self.sources.append(source)
        return source

    async def browse(
        self, topic: TopicSpec, start: Start = "earliest"
    ) -> AsyncIterator[Sequence[Received]]:
        try:
            yield [Received(b"x", {}, position="1", token=None)]
        finally:
            self.fail()

    topics = groups = describe_topic = describe_group = refuse
    delete_topic = delete_group = purge = seek = refuse


class ForeignSource(ScriptedSource):
    driver: ForeignDriver

    async def extend(self, records: Sequence[Received]) -> None:
        self.driver.fail()


register("foreign", f"{__name__}:ForeignDriver")

Call = Callable[[Broker], Awaitable[object]]


async def browse(broker: Broker) -> None:
    async for _ in broker.admin.browse("t"):
        pass


async def publish_many(broker: Broker) -> None:
    (outcome,) = await broker.publish_many("t", [b"x"], timeout=0.3)
    if isinstance(outcome, BaseException):
        raise outcome


async def enter(broker: Broker) -> None:
    async with broker.subscribe("fresh", group="g"):
        pass


CALLS: dict[str, Call] = {
    "ping": lambda broker: broker.ping(),
    "publish": lambda broker: broker.publish("t", b"x", timeout=0.3),
    "publish_many": publish_many,
    "request": lambda broker: broker.request("t", b"x", timeout=0.3),
    "subscribe": enter,
    "topics": lambda broker: broker.admin.topics(),
    "groups": lambda broker: broker.admin.groups("t"),
    "describe": lambda broker: broker.admin.describe("t"),
    "describe group": lambda broker: broker.admin.describe("t", "g"),
    "declare": lambda broker: broker.admin.declare("fresh"),
    "delete": lambda broker: broker.admin.delete("t"),
    "delete group": lambda broker: broker.admin.delete("t", "g"),
    "purge": lambda broker: broker.admin.purge("t"),
    "seek": lambda broker: broker.admin.seek("t", "g", to="latest"),
    "browse": browse,
    "count": lambda broker: broker.admin.dead_letters("t", "g").count(),
}


async def foreign() -> tuple[Broker, ForeignDriver]:
    broker = await connect("foreign://?connect_timeout=0.3")
    assert isinstance(broker.driver, ForeignDriver)
    return broker, broker.driver


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ERRORS)
async def test_a_call_raises_errors_of_anymq_alone(call: str, error: str) -> None:
    broker, driver = await foreign()
    try:
        driver.error = ERRORS[error]
        with pytest.raises(AnymqError):
            await CALLS[call](broker)
    finally:
        driver.error = None
        await broker.aclose()


@pytest.mark.parametrize("error", ERRORS)
async def test_extend_raises_errors_of_anymq_alone(error: str) -> None:
    broker, driver = await foreign()
    async with aclosing(broker), broker.subscribe("t", group="g") as subscription:
        driver.sources[0].put("x")
        (delivery,) = await take(subscription, 1)
        driver.error = ERRORS[error]
        with pytest.raises(AnymqError):
            await delivery.extend()
        driver.error = None
        await delivery.ack()
