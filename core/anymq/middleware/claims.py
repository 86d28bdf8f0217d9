"""`Claims`: what the handlers of a subscription hold in a store, claimed and completed in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ..driver.store import Claim, ClaimState, Store
from ..ids import new_id
from ..logs import logger
from ..tasks import fault, supervise
from .store_call import key_of, tried

if TYPE_CHECKING:
    from ..consuming.delivery import Delivery
    from ..consuming.subscription import Subscription

log = logger("anymq.idempotency")

SOON = 0.01
"""Claimed ahead is what handlers will have begun with after as many seconds, at their rate."""
MOST = 500
LOOKS = 9
"""How often within a lease the claims are looked at: who was there three times is renewed."""
AHEAD = -1
BUSY = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class Told(Protocol):
    """Who wants to know that a message has been noted as done: mostly its `Delivery`."""

    def done(self) -> None:
        """It has been noted."""


class _Waiting:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.done = self.event.set


class Claims:
    """Claims of one owner in one store, by delivery.

    Whoever asks for a delivery asks for those behind it as well, as far as handlers will soon get
    to them; so a fast handler costs a few calls of the store, and a slow one holds nothing that it
    does not work on. What is claimed ahead and not begun with is abandoned when the subscription
    lets go of it, and when handlers stand still. What is handled is completed together with what
    else was handled meanwhile, and this is repeated until the store has it.

    A crash leaves all of it to the lease, as it does what is being handled.
    """

    def __init__(self, where: str | Store, lease: float, keep: float) -> None:
        self._where = where
        self._store: Store | None = None
        self._subscription: Subscription | None = None
        self._lease = lease
        self._keep = keep
        self._owner = new_id()
        self._keys: dict[str, int] = {}
        """All keys in use here: `AHEAD`, or how often they were looked at while handled."""
        self._ahead: dict[Delivery, str] = {}
        self._good_until = 0.0
        """Until when nobody else can have got what is claimed ahead."""
        self._low = 0
        """With so few ahead, it is time to ask for more."""
        self._asking: dict[Delivery, asyncio.Task[Exception | None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._awaited: set[Delivery] = set()
        self._refused: dict[Delivery, Claim] = {}
        self._begun = self._begun_when_asked = self._begun_when_looked = 0
        self._asked_at = monotonic()
        self._handled: dict[str, Told] = {}
        self._completing: asyncio.Task[None] | None = None
        self._watching: asyncio.AbstractEventLoop | None = None
        self._named: tuple[Subscription, str | None] | None = None
        self._name = ""
        """What the keys of all messages of that subscription and source begin with."""
        self._old_notes = False
        """Whether the store may have notes of this group under keys from before 0.1.0."""
        self._tasks: set[asyncio.Task[None]] = set()

    def begin_now(self, delivery: Delivery) -> str | None:
        """Return the key of `delivery`, which is being handled now, if it was claimed ahead."""
        key = self._ahead.get(delivery)
        if key is None or monotonic() > self._good_until:
            return None
        del self._ahead[delivery]
        self._keys[key] = 0
        self._begun += 1
        left = len(self._ahead)
        if left < self._low and not self._asking and self._store is not None:
            subscription = delivery.subscription
            if subscription.buffered > left + self._low // 2:
                self._ask(self._store, subscription)
        return key

    async def begin(self, delivery: Delivery) -> str | Claim:
        """Claim `delivery`; return its key, or the claim that is in its way.

        Raises `RetryAfter`, uncounted, if the store fails.
        """
        if self._store is None:
            self._store = await self._opened(delivery)
        while True:
            if delivery in self._refused:
                return self._refused.pop(delivery)
            if delivery in self._ahead:
                key = self.begin_now(delivery)
                if key is not None:
                    return key
                await self._abandon_ahead()  # Too old: somebody else may have got them.
                continue
            task = self._asking.get(delivery)
            if task is None:
                key = self._key(delivery)
                if key in self._leaving:
                    await asyncio.shield(self._leaving[key])
                    continue
                if key in self._keys:
                    return Claim(ClaimState.IN_PROGRESS, BUSY)
                task = self._ask(self._store, delivery.subscription, delivery)
            error = await self._answered(task, delivery)
            if error is not None:
                raise error
            key = self._ahead.pop(delivery, None)
            if key is not None:
                self._keys[key] = 0
                self._begun += 1
                return key

    def complete(self, key: str, told: Told) -> None:
        """Have the store remember `key`, and call `told.done()` when it does.

        This is repeated as long as the store fails and the subscription is open.
        """
        self._handled[key] = told
        if self._completing is None:
            assert self._store is not None
            self._completing = supervise(
                self._complete(self._store), name="anymq-idempotency-complete"
            )

    @property
    def in_bulk(self) -> bool:
        """See `Store.in_bulk`."""
        return self._store is not None and self._store.in_bulk

    async def completed(self, key: str) -> None:
        """Return when the store remembers `key`.

        Where it does not do so in bulk it is asked in the caller's context. That raises
        `RetryAfter`, uncounted, if it fails repeatedly; the claim is abandoned then.
        """
        if self.in_bulk:
            waiting = _Waiting()
            self.complete(key, waiting)
            await waiting.event.wait()
            return
        store = self._store
        assert store is not None
        try:
            await tried(lambda: store.complete(key, self._owner, self._keep))
        except BaseException:
            await asyncio.shield(self.abandon(key))
            raise
        del self._keys[key]

    async def abandon(self, *keys: str) -> None:
        """Leave `keys` to whoever asks next."""
        assert self._store is not None
        try:
            await self._store.abandon_many(keys, self._owner)
        except BaseException as raw:
            # The claims then end with their lease: the retry is postponed, not eaten.
            log.warning("abandoning %d claims failed: %s", len(keys), fault(raw, "the store"))
        finally:
            for key in keys:
                del self._keys[key]

    async def let_go(self) -> None:
        """Abandon what is claimed ahead; return when the store knows of all that was handled."""
        if self._asking:
            await asyncio.wait(set(self._asking.values()))
        self._refused.clear()
        await self._abandon_ahead()
        if self._completing is not None:
            await asyncio.wait((self._completing,))

    # Asking.

    def _ask(
        self, store: Store, subscription: Subscription, *first: Delivery
    ) -> asyncio.Task[Exception | None]:
        """Claim what comes `first` and what comes soon."""
        now = monotonic()
        begun = self._begun - self._begun_when_asked
        count = min(MOST, int(begun * SOON / max(now - self._asked_at, 1e-6)))
        self._begun_when_asked, self._asked_at = self._begun, now
        self._low = count // 2
        if not self._ahead and not self._asking:
            self._good_until = now + self._lease / 2
        asked = dict(self._unclaimed((*first, *subscription.ahead(count))))
        if self._subscription is not subscription:
            self._subscription = subscription
            subscription.before_letting_go(self.let_go)
        task = asyncio.create_task(self._begin(store, asked), name="anymq-idempotency-begin")
        self._asking.update(dict.fromkeys(asked, task))
        return task

    def _unclaimed(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Delivery, str]]:
        keys, ahead, refused = self._keys, self._ahead, self._refused
        for delivery in deliveries:
            if delivery in ahead or delivery in refused:
                continue
            key = self._key(delivery)
            if key not in keys:
                keys[key] = AHEAD
                yield delivery, key

    def _key(self, delivery: Delivery) -> str:
        """Return what a message is known by: its topic, group, source and id.

        In the place of the group a broadcast subscription has its own name.
        """
        source, id = delivery.identity
        subscription, named = delivery.subscription, self._named
        if named is None or named[0] is not subscription or named[1] != source:
            self._named = subscription, source
            self._name = key_of(delivery, source, "")
        return self._name + id

    async def _opened(self, delivery: Delivery) -> Store:
        store = await tried(lambda: delivery.stores.get(self._where))
        if delivery.group is not None:
            before = f"{delivery.group}|"
            self._old_notes = await tried(lambda: store.may_know(before))
        return store

    async def _ask_for(self, store: Store, asked: dict[Delivery, str]) -> dict[str, Claim]:
        """Begin the keys of `asked`; return the claims that are in the way.

        An old note is in the way as well. What nobody held under an old key is let go at once.
        """
        keys = list(asked.values())
        old = (
            {key: _old_key(delivery) for delivery, key in asked.items()} if self._old_notes else {}
        )
        both = [*keys, *dict.fromkeys(old.values())]
        found = await store.begin_many(both, self._owner, self._lease)
        if not old:
            return found
        refused = {key: claim for key in keys if (claim := found.get(key) or found.get(old[key]))}
        kept = found.keys() | (set(keys) - refused.keys())
        await store.abandon_many([key for key in both if key not in kept], self._owner)
        return refused

    async def _begin(self, store: Store, asked: dict[Delivery, str]) -> Exception | None:
        keys = list(asked.values())
        refused: dict[str, Claim] = {}
        failure: Exception | None = None
        try:
            if keys:
                refused = await tried(lambda: self._ask_for(store, asked))
        except Exception as error:
            failure = error
        if not self._ahead:  # Handlers were waiting: how fast they are is not known from that.
            self._begun_when_asked, self._asked_at = self._begun, monotonic()
        for delivery, key in asked.items():
            del self._asking[delivery]
            if failure is None and key not in refused:
                self._ahead[delivery] = key
                continue
            del self._keys[key]
            if failure is None:
                self._refused[delivery] = refused[key]
        self._watch()
        return failure

    async def _answered(
        self, task: asyncio.Task[Exception | None], delivery: Delivery
    ) -> Exception | None:
        self._awaited.add(delivery)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: self._forgo(delivery))
            raise
        finally:
            self._awaited.discard(delivery)

    # Giving up.

    def _forgo(self, delivery: Delivery) -> None:
        """Nobody waits for `delivery` any more."""
        self._refused.pop(delivery, None)
        key = self._ahead.pop(delivery, None)
        if key is not None:
            self._leave(key)

    async def _abandon_ahead(self) -> None:
        gone = [delivery for delivery in self._ahead if delivery not in self._awaited]
        if gone:
            await asyncio.shield(self._leave(*[self._ahead.pop(delivery) for delivery in gone]))

    def _leave(self, *keys: str) -> asyncio.Task[None]:
        """Abandon what no handler has begun with; who comes for it meanwhile waits for that."""

        async def leave() -> None:
            await self.abandon(*keys)
            for key in keys:
                del self._leaving[key]

        task = self._spawn(leave())
        self._leaving.update(dict.fromkeys(keys, task))
        return task

    # Completing.

    async def _complete(self, store: Store) -> None:
        pause = FIRST_PAUSE
        while self._handled:
            handled, self._handled = self._handled, {}
            try:
                await store.complete_many(list(handled), self._owner, self._keep)
            except BaseException as raw:
                error = fault(raw, "the store")
                if self._closed:
                    log.error("%d messages will be handled again: %s", len(handled), error)
                    break
                log.warning("the store does not take what is done, trying again: %s", error)
                self._handled = handled | self._handled
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            for key, told in handled.items():
                del self._keys[key]
                told.done()
        self._completing = None

    # Looking after them.

    @property
    def _closed(self) -> bool:
        return self._subscription is not None and self._subscription.closed

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self._lease / LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._keys or self._closed:
            self._watching = None
            return
        if self._ahead and self._begun == self._begun_when_looked:
            self._spawn(self._abandon_ahead())
        self._begun_when_looked = self._begun
        for key, looks in self._keys.items():
            if looks != AHEAD:
                self._keys[key] = (looks + 1) % (LOOKS // 3)
                if self._keys[key] == 0:
                    self._spawn(self._renew(key))
        loop.call_later(self._lease / LOOKS, self._look, loop)

    async def _renew(self, key: str) -> None:
        assert self._store is not None
        try:
            await self._store.renew(key, self._owner, self._lease)
        except BaseException as raw:
            log.warning("renewing the claim on %s failed: %s", key, fault(raw, "the store"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = supervise(work, name="anymq-idempotency-lease")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _old_key(delivery: Delivery) -> str:
    """Return the key of versions before 0.1.0, which is ambiguous and leaves out the topic."""
    source, id = delivery.identity
    return f"{delivery.group}|{source}|{id}"
