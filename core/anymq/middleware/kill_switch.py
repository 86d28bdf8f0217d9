"""Stop fetching while handling fails, rather than empty the topic into the dead letters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Literal

from ..consuming.delivery import Consumer, Delivery, Handler
from ..errors import ConfigurationError, Reject, RetryAfter, StopLane
from ..logs import logger
from ..tasks import supervise
from .retry import Exhausted

log = logger("anymq.kill_switch")

State = Literal["closed", "open", "half-open"]

BUCKETS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """Pause the subscription for `pause` seconds when `threshold` of the outcomes are failures.

    Its place is between `DeadLetter` and `Retry`. It looks at the last `window` seconds, once they
    hold `minimum` outcomes. A failure is a handler that raised, a retry that was scheduled or used
    up; a `Reject` says that a message is bad, not that something is down, and does not count. Then
    the switch is *open*: nothing is fetched, what is in hand waits with its lease kept, and what
    still fails comes back uncounted. Nothing goes to the dead letters because of an outage.
    After the pause it is *half-open*: one delivery is tried. If that succeeds the switch closes and
    fetching goes on; if it fails the switch opens again, and the delivery comes back uncounted.

    Every member of a group has a switch of its own. Draining does not wait for the pause.
    `on_change` is called with the new state and the subscription, which is also logged.
    """

    threshold: float = 0.5
    window: float = 10.0
    minimum: int = 10
    pause: float = 30.0
    on_change: Callable[[State, Consumer], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigurationError("KillSwitch: threshold must be over 0, and at most 1")
        if self.window <= 0 or self.pause <= 0 or self.minimum < 1:
            raise ConfigurationError(
                "KillSwitch: window and pause must be positive, minimum at least 1"
            )

    def __call__(self, handler: Handler) -> Handler:
        switch: _Switch | None = None

        async def kill_switch(delivery: Delivery) -> None:
            nonlocal switch
            if switch is None:
                switch = _Switch(self, delivery)
            if not (switch.state == "closed" or await switch.admit(delivery)):
                return
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                switch.note(delivery, None)
                raise
            except Exception as error:
                failed = _is_failure(error)
                switch.note(delivery, failed)
                if failed and switch.state != "closed":
                    reason = "the kill switch is open"
                    raise RetryAfter(switch.left, reason, counted=False) from error
                raise
            by_hand = delivery.verb not in (None, "ack")
            switch.note(delivery, (delivery.verb == "nack" or None) if by_hand else False)

        return kill_switch


def _is_failure(error: Exception) -> bool | None:
    """Return whether `error` speaks of an outage; None if it says nothing either way."""
    if isinstance(error, (Exhausted, StopLane)):
        return True
    if isinstance(error, Reject):
        return None
    if isinstance(error, RetryAfter):
        return error.counted or None
    return True


class _Window:
    """Outcomes of the last seconds, in buckets: its memory does not grow with the traffic."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._buckets: deque[tuple[int, list[int]]] = deque()

    def add(self, now: float, failed: bool) -> tuple[int, int]:
        """Count one outcome; return how many there are, and how many of them failed."""
        number = int(now / self._width)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append((number, [0, 0]))
        while self._buckets[0][0] <= number - BUCKETS:
            self._buckets.popleft()
        self._buckets[-1][1][failed] += 1
        failures = sum(counts[True] for _, counts in self._buckets)
        return failures + sum(counts[False] for _, counts in self._buckets), failures

    def clear(self) -> None:
        self._buckets.clear()


class _Switch:
    """The switch of one subscription."""

    def __init__(self, settings: KillSwitch, first: Delivery) -> None:
        self.state: State = "closed"
        self._settings = settings
        self._subscription = first.subscription
        self._clock = first.clock
        self._window = _Window(settings.window)
        self._until = 0.0
        self._probe: Delivery | None = None
        self._waiting = 0
        self._paused = False
        self._changed = asyncio.Event()
        self._cooling: asyncio.Task[None] | None = None

    @property
    def left(self) -> float:
        """Seconds until the next probe."""
        return max(self._until - self._clock.monotonic(), 0.0)

    async def admit(self, delivery: Delivery) -> bool:
        """Wait until `delivery` may be handled; False if it is settled, or has been given back."""
        self._waiting += 1
        admitted = False
        try:
            while self.state != "closed" and not delivery.settled:
                if self._subscription.closing:
                    await delivery.release()
                elif self.state == "half-open" and self._probe is None:
                    self._probe = delivery
                    self._stop()
                    break
                else:
                    await self._clock.wait(self._changed, self._clock.poll)
            admitted = not delivery.settled
        finally:
            self._waiting -= 1
            if not admitted:
                self._seek()
        return admitted

    def note(self, delivery: Delivery, failed: bool | None) -> None:
        """Count what became of `delivery`; None is neither a success nor a failure."""
        if delivery is self._probe:
            self._probe = None
            if failed is None:
                self._seek()
            elif failed:
                self._open("the probe failed")
            else:
                self._close()
        elif self.state == "closed" and failed is not None:
            total, failures = self._window.add(self._clock.monotonic(), failed)
            enough = total >= self._settings.minimum
            if enough and failures >= self._settings.threshold * total:
                self._open(f"{failures} of {total} failed within {self._settings.window:g} s")

    def _open(self, reason: str) -> None:
        self._until = self._clock.monotonic() + self._settings.pause
        self._stop()
        # In a context of its own: no delivery waits for this task.
        self._cooling = Context().run(supervise, self._cool(), name="anymq-kill-switch")
        log.warning(
            "%s (group %s) is paused for %g s: %s",
            self._subscription.topic,
            self._subscription.group,
            self._settings.pause,
            reason,
        )
        self._change("open")

    async def _cool(self) -> None:
        while self.left > 0 and not self._subscription.closing:
            await self._clock.sleep(min(self.left, self._clock.poll))
        if not self._subscription.closing:
            log.info("%s: trying one delivery", self._subscription.topic)
            self._change("half-open")
            self._seek()

    def _close(self) -> None:
        self._window.clear()
        self._resume()
        log.info("%s goes on: the probe succeeded", self._subscription.topic)
        self._change("closed")

    def _seek(self) -> None:
        """Have another delivery tried: one of those that wait, or one that is yet to come."""
        if self.state == "half-open" and self._probe is None:
            self._wake()
            if self._waiting == 0:
                self._resume()

    def _stop(self) -> None:
        if not self._paused:
            self._subscription.pause(holder=self)
            self._paused = True

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._subscription.resume(holder=self)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _change(self, state: State) -> None:
        self.state = state
        self._wake()
        if self._settings.on_change is not None:
            try:
                self._settings.on_change(state, self._subscription)
            except Exception:
                log.exception("on_change failed; the switch is %s all the same", state)
