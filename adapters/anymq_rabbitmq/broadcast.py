"""`LogSource`: a broadcast reader, which follows the log of a topic by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from anymq.driver import Reader, Received, SourceLost, Start, TransientError

from . import convert
from .consumer import Cancelled, Consumer, Delivery
from .link import Link
from .log import START, Log
from .publisher import Publisher


class LogSource(Reader):
    """Reads a stream from a place that it remembers itself.

    A lost connection is reported once; after that `receive` returns nothing until the connection is
    back, and then goes on behind the last message it returned. A log that was purged is another
    one: it is read from its beginning.
    """

    def __init__(
        self,
        log: str,
        *,
        link: Link,
        publisher: Publisher,
        prefetch: int,
        skipped: Callable[[str, str], None],
    ) -> None:
        self._skipped = skipped
        self._publisher = publisher
        self._log = log
        self._link = link
        self._prefetch = prefetch
        self._consumer: Consumer | None = None
        self._next = 0
        self._reported = False

    async def start(self, start: Start, earlier: object = None) -> None:
        """Fix the place to begin at: on return everything published from then on is behind it.

        `earlier` is the `place` of the reader that this one goes on for.
        """
        if isinstance(earlier, int):
            self._next = earlier
            await self._look_again()
            self._consumer = await self._open(self._next)
            return
        place = await self._place(start)
        self._next = max(place, 0)
        self._consumer = await self._open("first" if place == START else place)

    @property
    def place(self) -> object:
        """See `Source`."""
        return self._next

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `Source`."""
        consumer = self._consumer
        if consumer is None or consumer.error is not None:
            return await self._reopen(wait)
        if limit < 1:
            return ()
        try:
            deliveries = await consumer.take(limit, wait)
        except (Cancelled, AMQPError, OSError, TransientError):
            return await self._reopen(wait)
        self._reported = False
        records = [record for d in deliveries if (record := self._record(d)) is not None]
        # This only asks for more: a log forgets nothing. What fails here fails the next call.
        with suppress(AMQPError, OSError, TransientError):
            await consumer.ack([delivery.tag for delivery in deliveries])
        return records

    async def aclose(self) -> None:
        """See `Source`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.aclose()

    def _record(self, delivery: Delivery) -> Received | None:
        offset = convert.offset(delivery)
        if offset < self._next:
            return None
        if offset > self._next > 0:
            self._skipped(str(self._next - 1), str(offset))
        self._next = offset + 1
        if convert.marker(delivery) is not None:
            return None
        return convert.received(
            delivery,
            token=None,
            position=str(offset),
            partition=convert.partition(delivery) or 0,
        )

    async def _open(self, place: str | int) -> Consumer:
        return await Consumer.open(
            self._link,
            self._log,
            prefetch=self._prefetch,
            arguments={"x-stream-offset": place},
        )

    async def _place(self, start: Start) -> int:
        return await Log(self._log, self._link, self._publisher).place(start)

    async def _look_again(self) -> None:
        """Go to the beginning if this is another log: one that ends before the place."""
        consumer = self._consumer
        if await self._place("latest") <= self._next:
            self._next = 0
        if consumer is not None and isinstance(consumer.error, Cancelled):
            await consumer.aclose()

    async def _reopen(self, wait: float) -> Sequence[Received]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        try:
            await self._look_again()
            self._consumer = await self._open(self._next)
        except ChannelNotFoundEntity as error:
            raise SourceLost(f"the log {self._log!r} is gone") from error
        except (AMQPError, OSError, TransientError):
            if not self._reported:
                self._reported = True
                raise
            # Raising again and again would have the core open another source, which would begin
            # at a place of its own.
            await asyncio.sleep(max(0.0, until - loop.time()))
        return ()
