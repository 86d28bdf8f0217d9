"""Groups in the states that tests of the command look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import start_blocking_portal

import anymq as library
from anymq.testing.tools import eventually, take, take_acked


async def reject_one(url: str, topic: str, group: str = "billing") -> None:
    """Publish three messages; the group acknowledges one and rejects one."""
    async with library.connect(url) as broker:
        await broker.publish_many(topic, ["a", "b", "c"], key="k")
        async with broker.subscribe(topic, group=group, prefetch=1) as deliveries:
            (first,) = await take_acked(deliveries, 1)
            assert first.message.body == b"a"
            (second,) = await take(deliveries, 1)
            await second.reject("no b")


def settled_group(url: str, topic: str, group: str = "billing") -> None:
    """As `reject_one`; on return the broker has seen the member leave."""

    async def work() -> None:
        await reject_one(url, topic, group)
        async with library.connect(url) as broker:
            await eventually(
                lambda: broker.admin.describe(topic, group),
                lambda found: found.members in (None, ()),
            )

    asyncio.run(work())


@contextmanager
def live_member(url: str, topic: str, group: str) -> Iterator[None]:
    """A member of a group, in a thread of its own, that holds one delivery."""
    with (
        start_blocking_portal() as thread,
        thread.wrap_async_context_manager(_holding(url, topic, group)),
    ):
        yield


@asynccontextmanager
async def _holding(url: str, topic: str, group: str) -> AsyncIterator[None]:
    async with (
        library.connect(url) as broker,
        broker.subscribe(topic, group=group, prefetch=1) as deliveries,
    ):
        (delivery,) = await take(deliveries, 1)
        yield
        await delivery.release()
