"""`Lookout`: a thread that notices when an event loop stands still, says why, and keeps leases.

A handler that computes, or waits without `await`, keeps the loop from everything else: from
extending leases, from heartbeats, from what other handlers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from logging import WARNING
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from ..logs import logger
from .delivery import Delivery, current

if TYPE_CHECKING:
    from .subscription import Subscription

log = logger("anymq.consumer")

EVERY = 0.25
"""Seconds between two questions to the loop, and between two looks while it stands still."""
NOTICED = 0.5
"""Seconds without an answer after which the thread looks what is running."""
BLOCKED = 1.0
"""Seconds from which a handler that blocks the loop is named in the log."""
STOOD = 5.0
"""The same where no handler is to blame."""
STILL = 30.0
"""Seconds after which a loop that still does not go on is said to stand."""
KEPT = 600.0
"""Seconds for which leases are kept while the loop stands still; it may never go on."""


@dataclass(slots=True)
class Stall:
    """A loop that stands still: since when, and what was seen to be running."""

    since: float
    delivery: Delivery | None = None
    """Of the handler that runs; None for other code."""
    place: str = ""
    lost: bool = False
    """Whether the lease of `delivery`, or what stands for one, was over for a moment."""
    said: bool = False

    @property
    def seconds(self) -> float:
        return monotonic() - self.since


class Lookout:
    """Watches over one event loop for as long as it has subscriptions."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Lookout]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._subscriptions: set[Subscription] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anymq-lookout", daemon=True)
        self._thread.start()

    @classmethod
    def join(cls, subscription: Subscription) -> None:
        """Watch over the running loop, also for `subscription`."""
        loop = asyncio.get_running_loop()
        found = cls._all.get(loop)
        if found is None:
            found = cls._all[loop] = cls(loop)
        found._subscriptions.add(subscription)

    @classmethod
    def leave(cls, subscription: Subscription) -> None:
        """Watch no more for `subscription`; the last one ends the thread."""
        for loop, found in list(cls._all.items()):
            found._subscriptions.discard(subscription)
            if not found._subscriptions:
                found._end.set()
                del cls._all[loop]

    # The rest runs in the thread.

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            stall, answered = Stall(monotonic()), threading.Event()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # it is closed
                return
            if answered.wait(NOTICED):
                continue
            # This thread has stood still as well: a stopped process is no handler's doing.
            if stall.seconds < NOTICED + BLOCKED:
                self._watch(stall, answered)

    def _watch(self, stall: Stall, answered: threading.Event) -> None:
        while not self._end.is_set():
            with contextlib.suppress(RuntimeError):  # the loop goes on, and changes what we look at
                self._look(stall)
            if answered.wait(EVERY):
                break
            if stall.seconds > STILL and not stall.said:
                stall.said = True
                _say(stall, "has been blocking the event loop for")
        if stall.seconds >= (STOOD if stall.delivery is None else BLOCKED):
            _say(stall, "blocked the event loop for")

    def _look(self, stall: Stall) -> None:
        task = asyncio.current_task(self._loop)
        found = None if task is None else self._handled_by(task)
        if found is not None:
            stall.delivery, stall.place = found, self._place()
        elif stall.delivery is None:
            stall.place = self._place()
        if stall.seconds < KEPT:
            for subscription in list(self._subscriptions):
                subscription.keep_leases()
        if stall.delivery is not None:
            stall.lost = stall.lost or stall.delivery.is_over

    def _handled_by(self, task: asyncio.Task[object]) -> Delivery | None:
        for subscription in list(self._subscriptions):
            if (found := subscription.handled_by(task)) is not None:
                return found
        # A task that a handler has begun; Python 3.11 does not tell.
        context = getattr(task, "get_context", None)
        delivery: Delivery | None = None if context is None else context().get(current)
        return None if delivery is None or delivery.settled else delivery

    def _place(self) -> str:
        """Return where the code is that the loop waits for: the outermost line that is not ours."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._loop_thread)
        found: FrameType | None = None
        for each in _outwards(frame):
            if _is_ours(each.f_globals.get("__name__", "")):
                break
            found = each
        if found is None:
            return "in code of no file"
        code = found.f_code
        return f"in {code.co_qualname}, {code.co_filename}:{found.f_lineno}"


def _is_ours(module: str) -> bool:
    package, _, rest = module.partition(".")
    return package in ("anymq", "asyncio") and not rest.startswith("testing")


def _outwards(frame: FrameType | None) -> Iterable[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _say(stall: Stall, what: str) -> None:
    delivery = stall.delivery
    if delivery is None:
        log.rarely("blocked", WARNING, f"other code {what} %.1f s (%s)", stall.seconds, stall.place)
        return
    log.seldom(
        ("blocked", delivery.topic, delivery.group),
        WARNING,
        f"handling %s from %s (group %s) {what} %.1f s, its lease was %s (%s); what blocks belongs "
        "into a thread: await asyncio.to_thread(…)",
        delivery.message.id,
        delivery.topic,
        delivery.group,
        stall.seconds,
        "lost" if stall.lost else "kept",
        stall.place,
    )
