"""The stored messages of a topic, from a start position to its end as of now."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..driver.specs import Start
from ..operating.topic_access import Stored
from .values import Last

if TYPE_CHECKING:
    from ..broker import Broker

FEW = 10_000
"""In a topic of no more messages, the last ones are searched from its beginning."""
AGES = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))
"""In others they are searched among those of these ages first."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def stored(broker: Broker, topic: str, start: Start | Last) -> AsyncGenerator[Stored, None]:
    """Yield the messages of `topic` from `start` to its end; those of a partition in their order.

    The last N are those with the latest times; they come in the order of time.
    """
    if isinstance(start, Last):
        for item in await last_stored(broker, topic, start):
            yield item
        return
    async with aclosing(broker.admin.browse(topic, start=start)) as found:
        async for item in found:
            yield item


async def last_stored(
    broker: Broker, topic: str, count: int, *, note: Callable[[Stored], None] | None = None
) -> list[Stored]:
    """Return the last `count` messages of `topic`, in the order of time.

    Those of one partition stay in its order, whatever their times are. `note` is called with each
    message that is read.
    """
    info = await broker.admin.describe(topic)
    starts: list[Start] = []
    if info.messages is None or info.messages > FEW:
        starts.extend(datetime.now(UTC) - age for age in AGES)
    found: list[Stored] = []
    for start in [*starts, "earliest"]:
        found = await _last_since(broker, topic, start, count, note)
        if len(found) >= count:
            break
    return found


async def _last_since(
    broker: Broker,
    topic: str,
    start: Start,
    count: int,
    note: Callable[[Stored], None] | None,
) -> list[Stored]:
    partitions: dict[int, deque[Stored]] = {}
    async for item in stored(broker, topic, start):
        if note is not None:
            note(item)
        partitions.setdefault(item.partition, deque(maxlen=count)).append(item)
    timed: list[tuple[datetime, Stored]] = []
    for kept in partitions.values():
        latest = _LONG_AGO
        for item in kept:
            latest = max(latest, item.message.time or _LONG_AGO)
            timed.append((latest, item))
    timed.sort(key=lambda pair: pair[0])
    return [item for _, item in timed[-count:]]
