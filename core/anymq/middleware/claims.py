"""`ClaimBatcher`: the idempotency claims of a subscription, acquired and completed in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from time import monotonic
from typing import Any, Protocol

from ..consuming.delivery import Consumer, Delivery
from ..driver.store import Claim, ClaimState, Store
from ..ids import new_id
from ..logs import logger
from ..tasks import fault, supervise
from .store_call import key_of, with_retries

log = logger("anymq.idempotency")

CLAIM_AHEAD_SECONDS = 0.01
"""Deliveries that handlers will start within this time are claimed ahead."""
MAX_CLAIMS = 500
"""The most claims of one call of the store."""
CHECKS_PER_LEASE = 9
"""Checks per claim lease; a claim still in use after three checks is renewed."""
AHEAD = -1
"""In the place of a number of checks: claimed, and in no handler yet."""
BUSY_SECONDS = 2.0
"""The longest wait before a message that is claimed elsewhere is delivered again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts to mark messages as completed."""


class CompletionListener(Protocol):
    """A delivery, or a caller, that waits for a message to be marked as completed."""

    def completed(self) -> None:
        """The store has marked the message as completed."""


class _Waiting:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.completed = self.event.set


class ClaimBatcher:
    """One owner's idempotency claims in one store, acquired and completed in batches.

    Claiming one delivery also claims the buffered deliveries that handlers are expected to start
    within 10 ms (at most 500). So a fast handler costs few calls of the store, and a slow handler
    claims nothing ahead. Unused claims are abandoned when the subscription releases the deliveries,
    or when its handlers stall. Completions are batched and retried until the store accepts them.

    After a crash all claims stay until their lease expires.
    """

    def __init__(self, where: str | Store, lease: float, keep: float) -> None:
        self._where = where
        self._store: Store | None = None
        self._subscription: Consumer | None = None
        self._lease = lease
        self._keep = keep
        self._owner = new_id()
        self._keys: dict[str, int] = {}
        """All keys in use: `AHEAD`, or the number of checks since their handlers started."""
        self._ahead: dict[Delivery, str] = {}
        self._valid_until = 0.0
        """The monotonic time until which no other owner can have got the claims ahead."""
        self._refill_at = 0
        """The number of claims ahead at which more are acquired."""
        self._asking: dict[Delivery, asyncio.Task[Exception | None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._awaited: set[Delivery] = set()
        self._refused: dict[Delivery, Claim] = {}
        self._begun = self._begun_at_ask = self._begun_at_check = 0
        self._asked_at = monotonic()
        self._handled: dict[str, CompletionListener] = {}
        self._completing: asyncio.Task[None] | None = None
        self._watching: asyncio.AbstractEventLoop | None = None
        self._named: tuple[Consumer, str | None] | None = None
        self._name = ""
        """The prefix of the keys of all messages of that subscription and source."""
        self._old_notes = False
        """Whether the store may know this group under keys from before 0.1.0."""
        self._tasks: set[asyncio.Task[None]] = set()

    def begin_now(self, delivery: Delivery) -> str | None:
        """Return the key of `delivery` if it was claimed ahead. A handler starts with it now."""
        key = self._ahead.get(delivery)
        if key is None or monotonic() > self._valid_until:
            return None
        del self._ahead[delivery]
        self._keys[key] = 0
        self._begun += 1
        left = len(self._ahead)
        if left < self._refill_at and not self._asking and self._store is not None:
            subscription = delivery.subscription
            if subscription.buffered > left + self._refill_at // 2:
                self._ask(self._store, subscription)
        return key

    async def begin(self, delivery: Delivery) -> str | Claim:
        """Claim `delivery`; return its key, or the claim of another owner.

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
                await self._abandon_ahead()  # They may have expired: another owner may hold them.
                continue
            task = self._asking.get(delivery)
            if task is None:
                key = self._key(delivery)
                if key in self._leaving:
                    await asyncio.shield(self._leaving[key])
                    continue
                if key in self._keys:
                    return Claim(ClaimState.IN_PROGRESS, BUSY_SECONDS)
                task = self._ask(self._store, delivery.subscription, delivery)
            error = await self._answered(task, delivery)
            if error is not None:
                raise error
            key = self._ahead.pop(delivery, None)
            if key is not None:
                self._keys[key] = 0
                self._begun += 1
                return key

    def complete(self, key: str, listener: CompletionListener) -> None:
        """Have the store remember `key`, and call `listener.completed()` when it does.

        This is repeated as long as the store fails and the subscription is open.
        """
        self._handled[key] = listener
        if self._completing is None:
            assert self._store is not None
            self._completing = supervise(
                self._complete(self._store), name="anymq-idempotency-complete"
            )

    @property
    def is_batched(self) -> bool:
        """See `Store.in_bulk`."""
        return self._store is not None and self._store.in_bulk

    async def completed(self, key: str) -> None:
        """Mark `key` as completed. Return when the store has done so.

        A store that does not batch is called in the caller's context. If it fails repeatedly, the
        claim is abandoned, and this raises `RetryAfter`, uncounted.
        """
        if self.is_batched:
            waiting = _Waiting()
            self.complete(key, waiting)
            await waiting.event.wait()
            return
        store = self._store
        assert store is not None
        try:
            await with_retries(lambda: store.complete(key, self._owner, self._keep))
        except BaseException:
            await asyncio.shield(self.abandon(key))
            raise
        del self._keys[key]

    async def abandon(self, *keys: str) -> None:
        """Abandon the claims on `keys`."""
        assert self._store is not None
        try:
            await self._store.abandon_many(keys, self._owner)
        except BaseException as raw:
            # The claims then end with their leases: the retry is delayed, not skipped.
            log.warning("abandoning %d claims failed: %s", len(keys), fault(raw, "the store"))
        finally:
            for key in keys:
                del self._keys[key]

    async def release(self) -> None:
        """Abandon the claims ahead; return when the store knows of everything handled so far."""
        if self._asking:
            await asyncio.wait(set(self._asking.values()))
        self._refused.clear()
        await self._abandon_ahead()
        if self._completing is not None:
            await asyncio.wait((self._completing,))

    # Acquiring.

    def _ask(
        self, store: Store, subscription: Consumer, *first: Delivery
    ) -> asyncio.Task[Exception | None]:
        """Claim the `first` deliveries, and those that handlers will start soon."""
        now = monotonic()
        begun = self._begun - self._begun_at_ask
        count = min(MAX_CLAIMS, int(begun * CLAIM_AHEAD_SECONDS / max(now - self._asked_at, 1e-6)))
        self._begun_at_ask, self._asked_at = self._begun, now
        self._refill_at = count // 2
        if not self._ahead and not self._asking:
            self._valid_until = now + self._lease / 2
        asked = dict(self._unclaimed((*first, *subscription.ahead(count))))
        if self._subscription is not subscription:
            self._subscription = subscription
            subscription.on_release(self.release)
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
        """Return the key of a message: its topic, group, source and id.

        A broadcast subscription uses its own name in place of the group.
        """
        source, id = delivery.identity
        subscription, named = delivery.subscription, self._named
        if named is None or named[0] is not subscription or named[1] != source:
            self._named = subscription, source
            self._name = key_of(delivery, source, "")
        return self._name + id

    async def _opened(self, delivery: Delivery) -> Store:
        store = await with_retries(lambda: delivery.stores.get(self._where))
        if delivery.group is not None:
            before = f"{delivery.group}|"
            self._old_notes = await with_retries(lambda: store.may_know(before))
        return store

    async def _ask_for(self, store: Store, asked: dict[Delivery, str]) -> dict[str, Claim]:
        """Claim the keys of `asked`; return the claims of other owners.

        A claim under a key of an earlier version counts as well. Such keys that no owner held are
        abandoned at once.
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
                refused = await with_retries(lambda: self._ask_for(store, asked))
        except Exception as error:
            failure = error
        if not self._ahead:  # Handlers were waiting, so this says nothing of their speed.
            self._begun_at_ask, self._asked_at = self._begun, monotonic()
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

    # Abandoning.

    def _forgo(self, delivery: Delivery) -> None:
        """Abandon the claim of `delivery`: its handler was cancelled."""
        self._refused.pop(delivery, None)
        key = self._ahead.pop(delivery, None)
        if key is not None:
            self._leave(key)

    async def _abandon_ahead(self) -> None:
        gone = [delivery for delivery in self._ahead if delivery not in self._awaited]
        if gone:
            await asyncio.shield(self._leave(*[self._ahead.pop(delivery) for delivery in gone]))

    def _leave(self, *keys: str) -> asyncio.Task[None]:
        """Abandon claims of no handler. A delivery that claims them meanwhile waits for that."""

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
                    log.error(
                        "%d handled messages were not marked as completed before the subscription "
                        "closed: %s; they will be handled again",
                        len(handled),
                        error,
                    )
                    break
                log.warning(
                    "marking %d messages as completed failed: %s; retrying", len(handled), error
                )
                self._handled = handled | self._handled
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            for key, listener in handled.items():
                del self._keys[key]
                listener.completed()
        self._completing = None

    # Renewing.

    @property
    def _closed(self) -> bool:
        return self._subscription is not None and self._subscription.closed

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self._lease / CHECKS_PER_LEASE, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._keys or self._closed:
            self._watching = None
            return
        if self._ahead and self._begun == self._begun_at_check:
            self._spawn(self._abandon_ahead())
        self._begun_at_check = self._begun
        for key, checks in self._keys.items():
            if checks != AHEAD:
                self._keys[key] = (checks + 1) % (CHECKS_PER_LEASE // 3)
                if self._keys[key] == 0:
                    self._spawn(self._renew(key))
        loop.call_later(self._lease / CHECKS_PER_LEASE, self._check, loop)

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
    """Return the key of versions before 0.1.0: it is ambiguous, and leaves out the topic."""
    source, id = delivery.identity
    return f"{delivery.group}|{source}|{id}"
