"""`Fetcher`: reads a source as credit allows, and reopens it when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from ..driver.clock import Clock
from ..driver.listener import Listener
from ..driver.progress import Progress, Stalled
from ..driver.records import Received
from ..driver.source import OrderedSource, Reader, Source, SourceLost
from ..errors import ConfigurationError, TransientError
from ..logs import logger
from ..tasks import fault, supervise
from .broadcast_settler import BroadcastSettler
from .buffer import DeliveryBuffer
from .context import ConsumerContext
from .delivery import Consumer
from .group_settler import GroupSettler
from .listener import SourceListener
from .options import SubscribeOptions
from .ordered_settler import OrderedSettler
from .settler import AnySettler, SettlerSettings

log = logger("anymq.consumer")

RECEIVE_TIMEOUT = 30.0
"""Seconds beside its wait after which a read is cancelled, together with its source."""
MAX_FAILED_READS = 5
"""Failed reads in a row after which the source is reopened."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts to read, or to reopen."""
CANCEL_GRACE = 1.0
"""Seconds that a cancelled read has to end."""

OpenSource = Callable[[int, object, Listener], Awaitable[Reader]]
"""Opens the source number N of a subscription, for a broadcast reader at an earlier position."""


class Fetcher:
    """The reading side of a subscription.

    It fetches as many messages as the buffer has credit for. A lost connection is not an error: it
    reopens the source, retrying indefinitely with a backoff of at most 2 s, and logs it.
    """

    def __init__(
        self,
        open_source: OpenSource,
        options: SubscribeOptions,
        context: ConsumerContext,
        consumer: Consumer,
        buffer: DeliveryBuffer,
        listener: SourceListener,
    ) -> None:
        self.failed: BaseException | None = None
        """The error of the last read, while reads fail."""
        self.failed_since = 0.0
        """The time of the first of these failed reads."""
        self.stalled_since: float | None = None
        """The time since which the broker has delivered none of the messages that it has."""
        self.settler: AnySettler | None = None
        """The settler of the source in use."""
        self._open_source = open_source
        self._options = options
        self._context = context
        self._settings = SettlerSettings(
            options=options, context=context, consumer=consumer, inbox=buffer
        )
        self._buffer = buffer
        self._listener = listener
        self._topic = options.topic.name
        self._group = options.group
        self._clock: Clock = context.clock
        self._position: object = None
        """The position of a broadcast reader, see `Reader.position`."""
        self._generation = 0
        self._task: asyncio.Task[None] | None = None

    # Opening.

    async def open(self, within: float) -> None:
        """Open the first source. Transient errors are retried for `within` seconds."""
        loop = asyncio.get_running_loop()  # Real time: a test that moves the clock waits here.
        until = loop.time() + within
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._open()
            except TransientError as error:
                if loop.time() + pause > until:
                    raise
                log.debug("%s; retrying", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _open(self) -> None:
        self._generation += 1
        try:
            source = await self._open_source(self._generation, self._position, self._listener)
        except BaseException as raw:
            translated = self._translated(fault(raw, "the client library"))
            if translated is raw:
                raise
            raise translated from translated.__cause__
        if self._group is None:
            self._position = source.position
            if isinstance(self.settler, BroadcastSettler):
                self.settler.source = source
                return
        self.settler = self._buffer.settler = self._settler_of(source)

    def _settler_of(self, source: Reader) -> AnySettler:
        """Return a settler for `source`; raises `ConfigurationError` if it is of another kind."""
        settings, ordered = self._settings, self._options.ordered
        if self._group is None:
            return BroadcastSettler(source, settings)
        if ordered and isinstance(source, OrderedSource):
            return OrderedSettler(source, settings)
        if not ordered and isinstance(source, Source):
            return GroupSettler(source, settings)
        wanted = OrderedSource if ordered else Source
        driver = type(settings.context.driver).__name__
        raise ConfigurationError(
            f"{driver}.subscribe returned {source!r}, which is no {wanted.__name__}"
        )

    def _translated(self, raw: Exception) -> BaseException:
        return self._context.translate(raw, f"subscribe to {self._topic}")

    # Fetching.

    def start(self) -> None:
        """Fetch from now on, in a task."""
        self._task = supervise(self._run(), name=f"anymq-fetch-{self._topic}")

    @property
    def has_ended(self) -> bool:
        """Whether fetching has ended while the subscription is open, as it never should."""
        return self._buffer.is_open and self._task is not None and self._task.done()

    def _note_failure(self, error: BaseException) -> None:
        if self.failed is None:
            self.failed_since = self._clock.monotonic()
        self.failed = error

    async def stop(self) -> None:
        """Return when fetching has ended."""
        assert self._task is not None
        # A read is left to expire, because a cancelled one may lose the records it had taken.
        _, running = await asyncio.wait((self._task,), timeout=self._clock.poll + 1)
        for task in running:
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_GRACE)

    async def _run(self) -> None:
        """Fetch until the subscription closes; after a defect of anymq, from another source."""
        failures = 0
        while self._buffer.is_open:
            try:
                return await self._fetch()
            except BaseException as raw:
                error = fault(raw, "fetching")
                failures += 1
                log.exception(
                    "fetching from %s (group %s) failed; opening another source",
                    self._topic,
                    self._group,
                )
                assert self.settler is not None
                self.settler.broken = True
                self._note_failure(error)
                await self._pause(_backoff(failures))

    async def _fetch(self) -> None:
        failures = 0
        poll = self._clock.poll
        progress: Progress | None = None
        while self._buffer.is_open:
            settler = self.settler
            assert settler is not None
            if progress is None or progress.source is not settler.source:
                progress = Progress(settler.source, self._clock.monotonic())
            limit = await self._buffer.limit()
            if self._is_closing():
                return
            begun = self._clock.monotonic()
            watchdog = asyncio.timeout(poll + RECEIVE_TIMEOUT)
            try:
                if settler.broken:
                    raise SourceLost(settler.why_broken)
                async with watchdog:
                    records = await settler.source.receive(limit, poll if limit else 0.0)
                if records or not limit:
                    progress.moved(self._clock.monotonic())
                    self.stalled_since = None
                elif await progress.look(self._clock.monotonic()):
                    self.stalled_since = None
            except BaseException as raw:
                failures += 1
                error = fault(raw, "the client library")
                # A timeout of the client is an ordinary error; that of the watchdog is not.
                hung = isinstance(raw, TimeoutError) and watchdog.expired()
                await self._recover(settler, error, failures, hung=hung)
                continue
            failures = 0
            self.failed = None
            self._accept(settler, records, limit, begun)

    def _is_closing(self) -> bool:
        return not self._buffer.is_open

    def _accept(
        self, settler: AnySettler, records: Sequence[Received], limit: int, begun: float
    ) -> None:
        # A read that took too long may have had its records from the beginning.
        overran = self._clock.monotonic() - begun > 2 * self._clock.poll
        deliveries = settler.hold(records, begun if overran else None) if records else ()
        self._buffer.put(deliveries, full=0 < limit <= len(records))
        if records and self._group is None:
            self._position = settler.source.position

    # Recovery.

    async def _recover(
        self, settler: AnySettler, raw: Exception, failures: int, *, hung: bool
    ) -> None:
        error = self._read_error(raw, hung=hung)
        self._note_failure(error)
        if isinstance(raw, Stalled) and self.stalled_since is None:
            self.stalled_since = self._clock.monotonic()
        log.rarely(
            (self._topic, self._group, "lost"),
            logging.WARNING,
            "receive from %s (group %s) failed: %s; retrying",
            self._topic,
            self._group,
            error,
        )
        log.debug("the cause", exc_info=raw)
        pause = _backoff(failures)
        if not (isinstance(raw, SourceLost) or hung or failures >= MAX_FAILED_READS):
            await self._pause(pause)
            return
        if self._group is None:
            if isinstance(raw, SourceLost):
                self._position = settler.source.position
            await settler.close_source()
        else:
            await self._listener.discard_all(settler)
            await settler.aclose()
            self._buffer.credit.clear()  # That settler held all of it.
        await self._reopen(pause)

    def _read_error(self, raw: Exception, *, hung: bool) -> BaseException:
        if isinstance(raw, SourceLost):
            return raw.__cause__ if isinstance(raw.__cause__, Exception) else raw
        if hung:
            seconds = self._clock.poll + RECEIVE_TIMEOUT
            return TransientError(f"a read did not end within {seconds:g} s")
        return self._translated(raw)

    async def _reopen(self, pause: float) -> None:
        """Open another source, retrying while the subscription is open."""
        while self._buffer.is_open:
            try:
                await self._open()
            except BaseException as again:
                self._note_failure(self._translated(fault(again, "the client library")))
                log.rarely(
                    (self._topic, self._group, "again"),
                    logging.WARNING,
                    "resubscribe to %s (group %s) failed: %s; retrying",
                    self._topic,
                    self._group,
                    self.failed,
                )
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                log.info("resubscribed to %s (group %s)", self._topic, self._group)
                return

    async def _pause(self, seconds: float) -> None:
        await self._clock.sleep(seconds * random.uniform(0.5, 1))


def _backoff(failures: int) -> float:
    return min(FIRST_PAUSE * 2.0 ** min(failures, 10), LONGEST_PAUSE)
