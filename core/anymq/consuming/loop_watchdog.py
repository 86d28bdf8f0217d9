"""`LoopWatchdog`: a thread that notices a blocked event loop, reports it, and renews leases.

A handler that computes, or waits without `await`, keeps the loop from everything else: from
renewing leases, from heartbeats, from other handlers.
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
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

from ..logs import logger
from .delivery import Delivery, current

log = logger("anymq.consumer")

PROBE_SECONDS = 0.25
"""Seconds between two probes of the loop, also while it is blocked."""
NOTICED_AFTER = 0.5
"""Seconds without an answer after which the thread looks for the running handler."""
HANDLER_LOGGED_AFTER = 1.0
"""Seconds from which a handler that blocks the loop is logged."""
OTHER_LOGGED_AFTER = 5.0
"""The same for code that is not a handler."""
STILL_LOGGED_AFTER = 30.0
"""Seconds after which a loop that is still blocked is logged."""
LEASES_RENEWED_FOR = 600.0
"""Seconds for which leases are renewed while the loop is blocked, as it may never continue."""


@dataclass(slots=True)
class Stall:
    """A blocked loop: the time it began, and the code that was seen to run."""

    since: float
    delivery: Delivery | None = None
    """The delivery whose handler runs; None for other code."""
    place: str = ""
    lost: bool = False
    """Whether the lease, session or connection of `delivery` has ended meanwhile."""
    logged: bool = False

    @property
    def seconds(self) -> float:
        return monotonic() - self.since


class Watched(Protocol):
    """A subscription, as the watchdog sees it. The watchdog calls it from its own thread."""

    def handled_by(self, task: asyncio.Task[Any]) -> Delivery | None: ...
    def extend_apart(self) -> None: ...


class LoopWatchdog:
    """The watchdog of one event loop, for as long as the loop has subscriptions."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, LoopWatchdog]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._subscriptions: set[Watched] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anymq-lookout", daemon=True)
        self._thread.start()

    @classmethod
    def join(cls, subscription: Watched) -> None:
        """Watch the running loop, also for `subscription`."""
        loop = asyncio.get_running_loop()
        found = cls._all.get(loop)
        if found is None:
            found = cls._all[loop] = cls(loop)
        found._subscriptions.add(subscription)

    @classmethod
    def leave(cls, subscription: Watched) -> None:
        """Stop watching for `subscription`. The last one ends the thread."""
        for loop, found in list(cls._all.items()):
            found._subscriptions.discard(subscription)
            if not found._subscriptions:
                found._end.set()
                del cls._all[loop]

    # The rest runs in the thread.

    def _run(self) -> None:
        while not self._end.wait(PROBE_SECONDS):
            stall, answered = Stall(monotonic()), threading.Event()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # it is closed
                return
            if answered.wait(NOTICED_AFTER):
                continue
            # If this thread stalled as well, the process was stopped.
            if stall.seconds < NOTICED_AFTER + HANDLER_LOGGED_AFTER:
                self._watch(stall, answered)

    def _watch(self, stall: Stall, answered: threading.Event) -> None:
        while not self._end.is_set():
            with contextlib.suppress(RuntimeError):  # the loop continues, and changes the sets
                self._look(stall)
            if answered.wait(PROBE_SECONDS):
                break
            if stall.seconds > STILL_LOGGED_AFTER and not stall.logged:
                stall.logged = True
                _log_stall(stall, "has been blocking the event loop for")
        if stall.seconds >= (
            OTHER_LOGGED_AFTER if stall.delivery is None else HANDLER_LOGGED_AFTER
        ):
            _log_stall(stall, "blocked the event loop for")

    def _look(self, stall: Stall) -> None:
        task = asyncio.current_task(self._loop)
        found = None if task is None else self._handled_by(task)
        if found is not None:
            stall.delivery, stall.place = found, self._place()
        elif stall.delivery is None:
            stall.place = self._place()
        if stall.seconds < LEASES_RENEWED_FOR:
            for subscription in list(self._subscriptions):
                subscription.extend_apart()
        if stall.delivery is not None:
            stall.lost = stall.lost or stall.delivery.is_expired

    def _handled_by(self, task: asyncio.Task[object]) -> Delivery | None:
        for subscription in list(self._subscriptions):
            if (found := subscription.handled_by(task)) is not None:
                return found
        # A task that a handler has started, which Python 3.11 does not report.
        context = getattr(task, "get_context", None)
        delivery: Delivery | None = None if context is None else context().get(current)
        return None if delivery is None or delivery.settled else delivery

    def _place(self) -> str:
        """Return the location of the running code: the outermost frame that is not of anymq."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._loop_thread)
        found: FrameType | None = None
        for each in _outwards(frame):
            if _is_internal(each.f_globals.get("__name__", "")):
                break
            found = each
        if found is None:
            return "in code of no file"
        code = found.f_code
        return f"in {code.co_qualname}, {code.co_filename}:{found.f_lineno}"


def _is_internal(module: str) -> bool:
    package, _, rest = module.partition(".")
    return package in ("anymq", "asyncio") and not rest.startswith("testing")


def _outwards(frame: FrameType | None) -> Iterable[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _log_stall(stall: Stall, what: str) -> None:
    delivery = stall.delivery
    if delivery is None:
        log.rarely("blocked", WARNING, f"other code {what} %.1f s (%s)", stall.seconds, stall.place)
        return
    log.seldom(
        ("blocked", delivery.topic, delivery.group),
        WARNING,
        f"handler of message %s from %s (group %s) {what} %.1f s, its lease was %s (%s); run "
        "blocking code in a thread: await asyncio.to_thread(…)",
        delivery.message.id,
        delivery.topic,
        delivery.group,
        stall.seconds,
        "lost" if stall.lost else "kept",
        stall.place,
    )
