"""Messages as they arrive: of a topic, looked at by a broadcast subscription, and of a group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING

from ..operating.topic_access import Stored
from .stored import last_stored
from .values import Last

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consuming.delivery import Delivery
    from ..consuming.subscription import Subscription
    from ..driver.info import GroupInfo
    from ..driver.specs import Start

MOST_SEEN = 100_000
"""The most positions that are remembered, so that no message is shown twice."""
QUIET_SECONDS = 0.4
"""Seconds without a delivery after which a group is asked whether it has messages left."""
QUIET_TIMES = 2
"""How many times in a row it must have none: a message may be on its way to this process."""


async def followed(broker: Broker, topic: str, start: Start | Last) -> AsyncGenerator[Stored, None]:
    """Yield the messages of `topic` from `start` on, and those that are published later."""
    first = "latest" if isinstance(start, Last) else start
    subscription = broker.subscribe(topic, group=None, start=first)
    async with subscription:
        # What is published from here on is delivered, and some of it may be among the last too.
        seen: deque[str] = deque(maxlen=MOST_SEEN)
        if isinstance(start, Last):
            for item in await last_stored(
                broker, topic, start, note=lambda one: seen.append(one.position)
            ):
                yield item
        repeated = set(seen)
        async for delivery in subscription:
            if delivery.position not in repeated:
                yield Stored(
                    position=delivery.position,
                    partition=delivery.partition,
                    message=delivery.message,
                )
            await delivery.ack()


async def drained(broker: Broker, subscription: Subscription) -> AsyncGenerator[Delivery, None]:
    """Yield the deliveries of a group's member until the group has no undelivered message.

    Messages that other members hold, and retries that are not due, are not waited for.
    """
    assert subscription.group is not None
    deliveries = aiter(subscription)
    while True:
        following = asyncio.ensure_future(anext(deliveries, None))
        try:
            quiet = 0
            while not (await asyncio.wait((following,), timeout=QUIET_SECONDS))[0]:
                info = await broker.admin.describe(subscription.topic, subscription.group)
                quiet = 0 if undelivered(info) else quiet + 1
                if quiet == QUIET_TIMES:
                    return
        finally:
            if not following.done():
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        delivery = following.result()
        if delivery is None:
            return
        yield delivery


def undelivered(info: GroupInfo) -> int:
    """Return the number of messages that a group has not received, as far as it is known."""
    if info.lag is not None:
        return info.lag - (info.in_flight or 0) - (info.waiting or 0)
    return sum(part.lag or 0 for part in info.partitions or ())
