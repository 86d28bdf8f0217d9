"""`Recorder`: middleware that notes each attempt of an app's handlers, for `TestBroker`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, cast

from ..consuming.delivery import Delivery, Handler, Settler
from ..middleware import Acknowledge, Middleware, NoRetry, Retry
from ..middleware.chain import stores_of
from ..subscriber import Subscriber
from .attempts import Attempt
from .errors import HandlerErrors


class Recorder:
    """The attempts of all handlers of an app, in the order of their starts."""

    def __init__(self, errors: HandlerErrors) -> None:
        self.errors = errors
        self.attempts: list[Attempt] = []
        self.duplicates = False
        """Whether every message is handled twice."""
        self.handlings: dict[Delivery, Handling] = {}
        """The deliveries that are being handled."""

    def watch(self, item: Subscriber) -> Subscriber:
        """Return `item` with the two links that observe: around the chain, and inside `Retry`.

        Stores that links name by URL are replaced by one in memory: a test must not read, or write,
        which messages were handled elsewhere.
        """
        links = [_with_private_stores(link) for link in item.options.middleware or ()]
        places = [at for at, link in enumerate(links) if isinstance(link, Retry | NoRetry)]
        links.insert(places[0] + 1 if places else len(links), AttemptLink(self))
        waits = any(isinstance(link, Acknowledge) and link.when == "success" for link in links)
        options = replace(item.options, middleware=(DeliveryLink(self, waits=waits), *links))
        return replace(item, options=options)

    @property
    def running(self) -> list[Attempt]:
        """The attempts whose handlers have not returned."""
        return [item.last for item in self.handlings.values() if item.last.ended is None]

    def is_overdue(self, now: float) -> bool:
        """Whether a retry is due that has not begun."""
        last = {
            (item.topic, item.group, item.message.source, item.message.id): item
            for item in self.attempts
        }
        return any(
            item.outcome == "nack" and (item.ended or now) + (item.delay or 0) <= now
            for item in last.values()
        )


def _with_private_stores(link: Any) -> Any:
    """Return `link` with `memory://`, which is private to a connection, for its stores' URLs."""
    if not is_dataclass(link) or isinstance(link, type):
        return link
    stores = stores_of([cast("Middleware", link)])
    named = [item.name for item in fields(link) if item.init]
    urls = {name: "memory://" for name in named if _is_url(getattr(link, name), stores)}
    return replace(link, **urls) if urls else link


def _is_url(value: object, stores: Sequence[object]) -> bool:
    return isinstance(value, str) and value in stores


class Handling:
    """A delivery in the chain: its attempts, and its settlement.

    It stands in front of the settler, and notes what it passes on. While it is `withholding`, it
    keeps the settlement.
    """

    def __init__(self, delivery: Delivery, recorder: Recorder) -> None:
        self._delivery = delivery
        self._recorder = recorder
        self._settler: Any = None
        self._withheld: Callable[[], None] | None = None
        self._began = False
        self._first = delivery.attempt
        self.withholding = False
        self.has_settled = asyncio.Event()
        self.last = self._attempt(self._first, duplicate=False)

    def stand_before(self, settler: Settler) -> Settler:
        """Return this object, which passes on to `settler`."""
        self._settler = settler
        return cast("Settler", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settler, name)

    # Attempts.

    def begin(self, number: int) -> None:
        """Note the start of an attempt. The first one has begun with the handling."""
        if self._began:
            now = self._delivery.clock.now()
            self.last.settled("nack", delay=now - (self.last.ended or now))
            self.last = self._attempt(number, duplicate=self.last.duplicate)
        self._began = True
        self.last.number = number

    def end(self, error: BaseException | None = None) -> None:
        """Note the end of the attempt, unless it is known."""
        if self.last.ended is None:
            self.last.ended = self._delivery.clock.now()
            self.last.error = error
        if isinstance(error, Exception):
            self._recorder.errors.note(error, self._delivery)

    def repeat(self) -> None:
        """Drop the acknowledgement that was withheld, and begin again."""
        self.withholding, self._withheld, self._began = False, None, False
        self._delivery.verb = None
        self._delivery.set_attempt(self._first)
        self._delivery.subscription.begin_attempt(self._delivery)
        self.last = self._attempt(self._first, duplicate=True)

    def _attempt(self, number: int, *, duplicate: bool) -> Attempt:
        started = self._delivery.clock.now()
        attempt = Attempt(self._delivery, number=number, started=started, duplicate=duplicate)
        self._recorder.attempts.append(attempt)
        return attempt

    # The methods of `Settler` that settle.

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge."""
        self.last.settled("ack")
        self._pass_on(lambda: self._settler.ack(delivery))

    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None:
        """Have the next attempt after `delay` seconds."""
        self.last.settled("nack", delay=delay)
        self._pass_on(lambda: self._settler.nack(delivery, delay, attempt))

    def release(self, delivery: Delivery) -> None:
        """Return the delivery uncounted."""
        self.last.settled("release")
        self._pass_on(lambda: self._settler.release(delivery))

    def reject(self, delivery: Delivery, reason: str, *rest: Any) -> None:
        """Move the message to the dead letters."""
        self.last.settled("reject", reason=reason)
        self._pass_on(lambda: self._settler.reject(delivery, reason, *rest))

    def stop(self, delivery: Delivery, reason: str) -> None:
        """Stop the key."""
        self.last.settled("stop", reason=reason)
        self._pass_on(lambda: self._settler.stop(delivery, reason))

    def _pass_on(self, settle: Callable[[], None]) -> None:
        if self.withholding:
            self._withheld = settle
        else:
            settle()
        self.has_settled.set()

    def let_go(self) -> None:
        """Pass on the settlement that was withheld, and later ones."""
        settle, self._withheld, self.withholding = self._withheld, None, False
        if settle is not None:
            settle()


class DeliveryLink:
    """The outermost link: it notes each delivery, and repeats it for `duplicate_all`.

    `waits` says that a delivery is settled soon after its handler has returned, if not before.
    """

    observes: Literal[True] = True

    def __init__(self, recorder: Recorder, *, waits: bool) -> None:
        self._recorder = recorder
        self._waits = waits

    def __call__(self, handler: Handler) -> Handler:
        recorder, handlings = self._recorder, self._recorder.handlings

        async def observe(delivery: Delivery) -> None:
            handling = handlings[delivery] = Handling(delivery, recorder)
            delivery.settle_through(handling.stand_before)
            try:
                if recorder.duplicates:
                    if not await self._is_handled(handler, delivery, handling):
                        return
                    handling.repeat()
                await handler(delivery)
                handling.end()
            except BaseException as error:
                handling.end(error)
                raise
            finally:
                del handlings[delivery]

        return observe

    async def _is_handled(self, handler: Handler, delivery: Delivery, handling: Handling) -> bool:
        """Run the handler; return whether it has acknowledged, which is withheld then."""
        handling.withholding = True
        try:
            await handler(delivery)
            handling.end()
            if self._waits:
                await handling.has_settled.wait()
        except BaseException:
            handling.let_go()
            raise
        if delivery.verb == "ack":
            return True
        handling.let_go()
        return False


class AttemptLink:
    """The link inside of `Retry`: it notes each attempt as `Retry` sees it."""

    passthrough: Literal[True] = True
    """The fast path skips it for an attempt that succeeds at once, which `DeliveryLink` notes."""

    def __init__(self, recorder: Recorder) -> None:
        self._handlings = recorder.handlings

    def __call__(self, handler: Handler) -> Handler:
        async def attempt(delivery: Delivery) -> None:
            handling = self._handlings[delivery]
            handling.begin(delivery.attempt)
            try:
                await handler(delivery)
            except BaseException as error:
                handling.end(error)
                raise
            handling.end()

        return attempt
