"""`DeliveryBuffer`: the fetched deliveries of a subscription, and the credit for more."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice

from ..driver.clock import Clock
from ..driver.specs import BROADCAST_ONLY, ONLY_GROUP
from ..errors import text_of
from ..logs import logger
from ..tasks import fault
from ..wire.forged_headers import only_group
from .credit import Credit
from .delivery import Delivery
from .key_lanes import KeyLanes
from .late_settlements import LateSettlements
from .options import SubscribeOptions
from .settler import AnySettler

log = logger("anymq.consumer")

RELEASE_TIMEOUT = 0.5
"""Seconds that middleware has to finish before deliveries are released, as a store may hang."""


class DeliveryBuffer:
    """The deliveries between a source and the handlers of one subscription.

    The fetcher puts deliveries in, as far as `credit` allows. Workers, or the task that iterates,
    take them out. A settler reports here what is no longer held.
    """

    def __init__(self, options: SubscribeOptions, clock: Clock, *, has_handler: bool) -> None:
        self.topic = options.topic.name
        self.group = options.group
        self.clock = clock
        self.credit = Credit(
            concurrency=options.workers,
            fixed=options.prefetch,
            max_bytes=options.prefetch_bytes,
            shared=options.group is not None and not options.ordered,
        )
        self.lanes = KeyLanes(Delivery.wait_out) if options.ordered else None
        self.queue: deque[Delivery] | KeyLanes = deque() if self.lanes is None else self.lanes
        """The deliveries to dispatch, the next one in front."""
        self.settler: AnySettler | None = None
        """The settler of the source in use."""
        self.late = LateSettlements(clock.monotonic)
        self.stopped: dict[Delivery, str] = {}
        """The deliveries that hold up their keys, with the reasons."""
        self.handling: dict[asyncio.Task[None], Delivery | None] = {}
        """The delivery in the handler of each worker."""
        self.room = asyncio.Event()
        """Set when more may be fetched, or something was settled."""
        self.key_freed = asyncio.Event()
        """Set when a delivery of an ordered subscription was settled."""
        self.entered = 0
        """The deliveries that were queued so far, and not dropped from the queue."""
        self.settled_count = 0
        """The deliveries that were settled so far."""
        self.is_open = False
        self.is_paused = False
        self.has_surplus = False
        """Whether there are more workers than handlers may run."""
        self.flows = False
        """Whether a worker may take the next delivery: open, not paused, no surplus."""
        self._has_handler = has_handler
        self._asks = not has_handler or options.ordered
        """Whether a taker may wait for a delivery before it settles those it has."""
        self._only = BROADCAST_ONLY if options.group is None else options.group
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._release_calls: set[Callable[[], Awaitable[None]]] = set()

    # Whether deliveries flow.

    def set_open(self, is_open: bool) -> None:
        """Start to dispatch deliveries, or stop."""
        self.is_open = is_open
        self._update_flow()

    def set_paused(self, is_paused: bool) -> None:
        """Hold the deliveries back, or dispatch them again."""
        self.is_paused = is_paused
        self._update_flow()
        if not is_paused:
            self.room.set()
            self.wake(len(self.queue))

    def set_surplus(self, has_surplus: bool) -> None:
        """Let idle workers end, or keep all of them."""
        self.has_surplus = has_surplus
        self._update_flow()

    def _update_flow(self) -> None:
        self.flows = self.is_open and not self.is_paused and not self.has_surplus

    # Fetching.

    async def limit(self) -> int:
        """Return how many to fetch now; 0 after 1 s without room, to keep the session alive."""
        credit = self.credit
        if not self.is_paused and (
            credit.room >= max(1, credit.window // 4) or (credit.room > 0 and not self.queue)
        ):
            return credit.room
        self.room.clear()
        await self.clock.wait(self.room, 1.0)
        if self.is_paused:
            return 0
        if self._asks and self._waiters and not self.queue and credit.held >= credit.window:
            credit.stretch()
        return max(0, credit.room)

    def put(self, deliveries: Sequence[Delivery], *, full: bool) -> None:
        """Buffer the `deliveries` of one fetch, which was `full` if it reached its limit."""
        starved = not self.queue
        if deliveries:
            size = sum(map(len, [item.received.body for item in deliveries]))
            self.credit.take(len(deliveries), size)
            kept = self.late.drop_settled(deliveries) if self.late.notes else deliveries
            self.queue.extend(kept)
            self.entered += len(kept)
            self.wake(len(deliveries))
        now = self.clock.monotonic()
        oldest = now - self.queue[0].fetched if self.queue else 0.0
        self.credit.fetched(full=full, starved=starved, oldest_wait=oldest, now=now)

    # Taking.

    def ahead(self, count: int) -> list[Delivery]:
        """Return up to `count` first attempts that will be dispatched next."""
        return [item for item in islice(self.queue, count) if item.cached_attempt == 1]

    async def take(self) -> Delivery | None:
        """Return the next delivery of this group; None when no work is left for the caller.

        A message that was redriven to another group alone is acked on the way.
        """
        while (delivery := await self._next()) is not None:
            headers = delivery.received.headers
            if headers.get(ONLY_GROUP) is None or only_group(headers) in (None, self._only):
                if delivery.cached_attempt or await delivery.begin():
                    return delivery
                continue
            log.seldom(
                ("only", self.topic, self.group),
                logging.INFO,
                "message at %s of %s (group %s) skipped: it was redriven to %s alone",
                delivery.position,
                self.topic,
                self.group,
                headers.get(ONLY_GROUP),
            )
            await delivery.ack()
        return None

    async def _next(self) -> Delivery | None:
        while not self.queue or self.is_paused or not self._is_checked():
            if not self.is_open or self.has_surplus:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            if self._asks and self.credit.room < 1:
                self.room.set()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.wake(1)  # This taker was woken, and takes nothing.
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        if not self.is_open or self.has_surplus:
            return None
        return self.queue.popleft()

    def wake(self, count: int) -> None:
        """Wake up to `count` takers that wait."""
        waiters = self._waiters
        while count > 0 and waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def wake_all(self) -> None:
        """Wake every taker that waits."""
        self.wake(len(self._waiters))

    def _is_checked(self) -> bool:
        """Drop expired deliveries; return whether any is left."""
        settler = self.settler
        if settler is not None and self.clock.monotonic() > settler.good_until:
            self.expire()
        return bool(self.queue)

    def expire(self) -> None:
        """Drop the buffered deliveries that may belong to another member by now."""
        settler = self.settler
        if settler is None:
            return
        over = [item for item in settler.expired(self.queue) if item.belongs_to(settler)]
        if not over:
            return
        gone = set(over)
        self.drop(lambda item: item in gone)
        settler.drop_expired(over)
        log.warning(
            "%d buffered messages of %s (group %s) dropped: this process, its event loop or its "
            "connection stalled for so long that other members may have them by now",
            len(over),
            self.topic,
            self.group,
        )

    def drop(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove `unwanted` deliveries that are not dispatched, and return them."""
        if self.lanes is not None:
            dropped = self.lanes.drop(unwanted)
        else:
            dropped = [item for item in self.queue if unwanted(item)]
            self.queue = deque(item for item in self.queue if not unwanted(item))
        self.entered -= len(dropped)
        return dropped

    def waiting(self) -> int:
        """Return the number of deliveries that wait for a taker, or for others of their keys."""
        return sum(1 for _ in self.queue)

    def taken(self) -> int:
        """Return the number of deliveries that were taken so far; another attempt counts again."""
        early = 0 if self.lanes is None else self.lanes.early
        return self.entered - early - self.waiting()

    def dispatched(self) -> Iterable[Delivery]:
        """Return the deliveries in handlers, or with the task that iterates."""
        if self._has_handler:
            return [item for item in self.handling.values() if item is not None]
        if self.lanes is not None:
            return [item for item in self.lanes.out if not item.settled]
        settler, waiting = self.settler, set(self.queue)
        return [] if settler is None else [d for d in settler.unsettled if d not in waiting]

    # Settlement: what a settler reports.

    def settled(self, count: int, size: int) -> None:
        """`count` deliveries, with bodies of `size` bytes in all, are no longer held."""
        self.credit.free(count, size)
        self.settled_count += count
        self.room.set()

    def redeliver(self, delivery: Delivery) -> None:
        """Dispatch a delivery that is redelivered from this process's memory."""
        self.credit.take(1, len(delivery.received.body))
        self.queue.extend((delivery,))
        self.entered += 1
        self.wake(1)

    def freed(self, delivery: Delivery) -> None:
        """Open the key of a settled delivery."""
        assert self.lanes is not None
        if self.lanes.free(delivery):
            self.wake(1)
        self.key_freed.set()

    def kept(self, delivery: Delivery, again: Delivery) -> None:
        """Let `again` hold the key of `delivery`, which failed."""
        assert self.lanes is not None
        self.lanes.replace(delivery, again)

    def again(self, delivery: Delivery) -> None:
        """Dispatch a kept delivery, whose backoff has ended."""
        assert self.lanes is not None
        if delivery in self.lanes.out:
            self.lanes.again(delivery)
            self.entered += 1
            self.wake(1)

    def stop_key(self, delivery: Delivery, reason: str) -> None:
        """Note that `delivery` holds up its key until it is restarted."""
        self.stopped[delivery] = reason

    def note_late(self, deliveries: Sequence[Delivery], attempt: int) -> None:
        """Note settlements of which the broker may not have heard.

        A message that was redelivered already, and is buffered, is settled here.
        """
        if not self.is_open:
            return
        self.late.note(deliveries, attempt)
        if not self.queue:
            return
        positions = {delivery.received.position for delivery in deliveries}
        came = [item for item in self._all() if item.received.position in positions]
        done = {item for item in came if self.late.settles(item)}
        self.drop(lambda item: item in done)

    def _all(self) -> Iterator[Delivery]:
        return iter(self.queue)

    # Release.

    def on_release(self, call: Callable[[], Awaitable[None]]) -> None:
        """Have `call` run before buffered deliveries are released or lost to another member."""
        self._release_calls.add(call)

    async def run_release_calls(self) -> None:
        """Let middleware finish, before deliveries are released."""
        for call in self._release_calls:
            try:
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await call()
            except BaseException as raw:
                error = fault(raw, "middleware")
                log.warning(
                    "middleware cleanup for %s (group %s) failed or exceeded %g s: %s; "
                    "its messages are released without it",
                    self.topic,
                    self.group,
                    RELEASE_TIMEOUT,
                    text_of(error),
                )
