"""`BroadcastReader`: follows the log of a topic by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

from anymq.driver import Reader, Received, SourceLost, Start, TransientError

from . import messages
from .client.fetcher import ConsumerCancelled, Delivery, Fetcher
from .connection import Connection
from .positions import EARLIEST, Log, open_stream


class BroadcastReader(Reader):
    """Reads a stream from an offset that it keeps itself.

    It reports a lost connection once. After that `receive` returns nothing until the connection is
    back, and then continues after the last message that it returned. A log that was purged is a new
    one: it is read from its beginning.
    """

    def __init__(
        self,
        log: Log,
        *,
        connection: Connection,
        prefetch: int,
        skipped: Callable[[str, str], None],
    ) -> None:
        self._skipped = skipped
        self._log = log
        self._connection = connection
        self._prefetch = prefetch
        self._fetcher: Fetcher | None = None
        self._next = 0
        """The offset of the next message."""
        self._reported = False

    async def start(self, start: Start, earlier: object = None) -> None:
        """Fix the start position: on return everything published from then on comes after it.

        `earlier` is the `position` of the reader that this one replaces.
        """
        if isinstance(earlier, int):
            self._next = earlier
            await self._restart_if_log_is_new()
            self._fetcher = await self._open(self._next)
            return
        offset = await self._log.offset_of(start)
        self._next = max(offset, 0)
        self._fetcher = await self._open("first" if offset == EARLIEST else offset)

    @property
    def position(self) -> object:
        """See `Reader`."""
        return self._next

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """See `Reader`."""
        fetcher = self._fetcher
        if fetcher is None or fetcher.error is not None:
            return await self._reopen(wait)
        if limit < 1:
            return ()
        try:
            deliveries = await fetcher.take(limit, wait)
        except (ConsumerCancelled, AMQPError, OSError, TransientError):
            return await self._reopen(wait)
        self._reported = False
        records = [record for d in deliveries if (record := self._record(d)) is not None]
        # This only requests more messages, as a log keeps them. An error also fails the next call.
        with suppress(AMQPError, OSError, TransientError):
            await fetcher.ack([delivery.tag for delivery in deliveries])
        return records

    async def aclose(self) -> None:
        """See `Reader`."""
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.aclose()

    def _record(self, delivery: Delivery) -> Received | None:
        offset = messages.offset(delivery)
        if offset < self._next:
            return None
        if offset > self._next > 0:
            self._skipped(str(self._next - 1), str(offset))
        self._next = offset + 1
        if messages.marker(delivery) is not None:
            return None
        return messages.received_from_log(delivery)

    async def _open(self, offset: str | int) -> Fetcher:
        return await open_stream(
            self._connection, self._log.stream, prefetch=self._prefetch, offset=offset
        )

    async def _restart_if_log_is_new(self) -> None:
        """Return to the beginning if the log ends before the next offset: it is another log."""
        fetcher = self._fetcher
        if await self._log.offset_of("latest") <= self._next:
            self._next = 0
        if fetcher is not None and isinstance(fetcher.error, ConsumerCancelled):
            await fetcher.aclose()

    async def _reopen(self, wait: float) -> Sequence[Received]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        try:
            await self._restart_if_log_is_new()
            self._fetcher = await self._open(self._next)
        except ChannelNotFoundEntity as error:
            raise SourceLost(f"the log {self._log.stream!r} was deleted") from error
        except (AMQPError, OSError, TransientError):
            if not self._reported:
                self._reported = True
                raise
            # If this raised again and again, the core would open another source.
            await asyncio.sleep(max(0.0, until - loop.time()))
        return ()
