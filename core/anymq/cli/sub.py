"""`anymq sub`: looks at the messages of a topic, or consumes them as a member of a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..driver.info import GroupInfo
from ..errors import NotFound
from ..names import check_group, check_topic
from .common import DEFAULT, Common, Flag
from .failures import UsageError
from .following import drained, followed
from .showing import Format, Shown, format_of
from .stored import last_stored, stored
from .streams import Writer
from .survey import describe_topic
from .values import From, Last

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consuming.delivery import Delivery
    from ..driver.specs import Start
    from .output import Output

POLL_SECONDS = 0.5
"""Seconds between two looks for a topic that does not exist yet."""
MOST_PREFETCHED = 1000
"""The most messages that a member holds unsettled when it is to consume a number of them."""


async def sub(
    topic: str,
    /,
    *,
    group: Annotated[str | None, Parameter(name=("--group", "-g"))] = None,
    count: Annotated[int | None, Parameter(name=("--count", "-n"))] = None,
    start: Annotated[From | None, Parameter(name="--from")] = None,
    until: Literal["end"] | None = None,
    format: Annotated[str | None, Parameter(name=("--format", "-f"))] = None,
    follow: Flag = False,
    common: Common = DEFAULT,
) -> None:
    """Look at the messages of a topic, or consume them as a member of a group.

    Without a group it looks: nothing is settled, and no group notices. It waits for new messages,
    or with `--from` shows those that are stored and ends; `--follow` then waits for more.

    With a group it consumes: a message is acknowledged when it has been written to standard output.
    One that is not written, because of Ctrl-C or a closed pipe, is delivered again.

    JSON: kind `message` for each: topic, position, partition, id, key, type, source, time,
    content_type, correlation_id, causation_id, headers, body or body_base64; with a group also
    group and attempt. `anymq pub` reads these lines.

    Parameters
    ----------
    topic
        The topic's name.
    group
        The group; it is created if there is none.
    count
        End after so many messages.
    start
        Where to begin: start, end, -10 (the last ten), @-1h, @TIME, or a position. For a group: a
        new one only; `anymq group seek` moves one that exists.
    until
        End when there are no more messages.
    format
        pretty, json, raw (the bodies unchanged), or a template such as '{key} {data}'.
    follow
        Wait for more messages at the end, and for a topic that does not exist yet.
    """
    check_topic(topic)
    if group is not None:
        check_group(group)
    if count is not None and count < 1:
        raise UsageError("-n is at least 1")
    if until is not None and follow:
        raise UsageError("--until end and --follow exclude each other")
    show = _format(format, as_json=common.output.as_json)
    async with common.connect() as broker:
        is_new = await _wait_for_topic(broker, topic, follow=follow, output=common.output)
        reading = Reading(broker, topic, count=count, show=show, output=common.output)
        if group is not None:
            work = reading.consume(group, start, is_finite=until is not None)
        else:
            if start is None:
                start = "earliest" if until is not None or is_new else "latest"
            is_endless = until is None and (follow or start == "latest")
            work = reading.look(start, is_endless=is_endless)
        await reading.writer.while_read(work)


class Reading:
    """The messages of one command, written in one format."""

    def __init__(
        self, broker: Broker, topic: str, *, count: int | None, show: Format, output: Output
    ) -> None:
        self.writer = Writer()
        self._broker = broker
        self._topic = topic
        self._left = count
        self._show = show
        self._output = output

    async def look(self, start: Start | Last, *, is_endless: bool) -> None:
        """Write messages from `start` on, to the end as of now unless `is_endless`."""
        more = "; waiting for more, Ctrl-C ends" if is_endless else ""
        self._output.note(f"looking at {self._topic} without a group: nothing is settled{more}")
        read = followed if is_endless else stored
        async with aclosing(read(self._broker, self._topic, start)) as messages:
            async for item in messages:
                if await self._write_last(Shown.of_stored(item)):
                    return

    async def consume(self, group: str, start: Start | Last | None, *, is_finite: bool) -> None:
        """Write and acknowledge what `group` receives, until nothing is left if `is_finite`."""
        broker, topic = self._broker, self._topic
        existing = await self._existing(group)
        if existing is not None and start is not None:
            raise UsageError(
                f"group {group} of {topic} exists and continues at its position; --from is for a "
                "new one",
                hint=f"to move it, type: anymq group seek {topic} {group} --to …",
            )
        if isinstance(start, Last):
            last = await last_stored(broker, topic, start)
            start = last[0].position if last else "earliest"
        subscription = broker.subscribe(
            topic,
            group=group,
            start=start,
            ordered=existing is not None and existing.ordered is True,
            prefetch=None if self._left is None else min(self._left, MOST_PREFETCHED),
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(subscription)
            self._output.note(
                f"consuming {topic} as a member of group {group}: each message is acknowledged "
                "when it is written"
            )
            deliveries: AsyncIterator[Delivery] = aiter(subscription)
            if is_finite:
                rest = drained(broker, subscription)
                deliveries = await stack.enter_async_context(aclosing(rest))
            async for delivery in deliveries:
                ends = await self._write_last(Shown.of_delivery(delivery))
                await delivery.ack()
                if ends:
                    return

    async def _write_last(self, message: Shown) -> bool:
        """Write `message`; True if it was the last."""
        await self.writer.write(self._show(message))
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    async def _existing(self, group: str) -> GroupInfo | None:
        try:
            return await self._broker.admin.describe(self._topic, group)
        except NotFound:
            return None


def _format(chosen: str | None, *, as_json: bool) -> Format:
    if as_json and chosen not in (None, "json"):
        raise UsageError(f"--json and -f {chosen} both choose a format; give one of them")
    return format_of("json" if as_json else chosen or "pretty")


async def _wait_for_topic(broker: Broker, topic: str, *, follow: bool, output: Output) -> bool:
    """Return when `topic` exists, True if it did not before; raises `NotFound` unless `follow`."""
    if not follow:
        try:
            await describe_topic(broker, topic)
        except NotFound as error:
            raise NotFound(f"{error} (--follow waits for it)") from error
        return False
    has_waited = False
    while True:
        try:
            await broker.admin.describe(topic)
        except NotFound:
            if not has_waited:
                output.note(f"waiting for the topic {topic}; Ctrl-C ends")
            has_waited = True
            await asyncio.sleep(POLL_SECONDS)
        else:
            return has_waited
