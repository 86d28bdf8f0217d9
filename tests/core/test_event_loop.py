"""The event loop of a broker: calls from another one are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import anymq
from anymq import Broker


async def published(broker: Broker) -> None:
    await broker.publish("orders", b"x")


async def many(broker: Broker) -> None:
    await broker.publish_many("orders", [b"x"])


async def asked(broker: Broker) -> None:
    await broker.request("orders", b"x")


async def joined(broker: Broker) -> None:
    async with broker.subscribe("orders", group="g"):
        pass


async def listed(broker: Broker) -> None:
    await broker.admin.topics()


@pytest.mark.parametrize("use", [published, many, asked, joined, listed, Broker.ping])
async def test_another_event_loop_is_refused(use: Callable[[Broker], Awaitable[None]]) -> None:
    async with anymq.connect("memory://") as broker:

        async def elsewhere() -> None:
            await use(broker)

        with pytest.raises(anymq.StateError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        await broker.publish("orders", b"still well")
