"""`logger`: how anymq logs. What others have sent cannot forge a line, nor fill the disk.

Ids, keys, reasons and errors hold whatever a publisher put into them. So every argument of a log
line has its control characters escaped here, and is cut when it is long; and what may happen for
every message is said with `seldom`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Hashable
from typing import Any

LONGEST = 1000
"""Characters of one argument that are logged."""
BURST = 10
"""How many lines of a kind are logged one by one, within `EVERY`, before they are counted."""
EVERY = 10.0
"""Seconds between two summaries of a kind."""
AGAIN = 60.0
"""Seconds after which `rarely` says the same once more."""
KINDS = 1000
"""Kinds that are told apart at a time."""

# Control characters, the separators that some viewers take for line ends, and what turns text
# around.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """Return `text` as it may stand in a log line: one line, nothing invisible, bounded."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text)} characters)"
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose arguments are `shown`."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})
        self._kinds: dict[Hashable, _Kind] = {}
        self._said: dict[Hashable, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `Logger.log`; the methods of the levels come here."""
        if self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, msg, *map(_argument, args), **kwargs)

    def seldom(
        self,
        kind: Hashable,
        level: int,
        msg: str,
        *args: object,
        exc_info: BaseException | None = None,
    ) -> None:
        """Log what may happen for every message.

        The first `BURST` of a `kind` within `EVERY` seconds are logged as they are; of the others
        there is one line, at the end of that time, with their number and the latest of them.
        `exc_info` is the error whose traceback the first ones show.
        """
        if not self.isEnabledFor(level):
            return
        now = time.monotonic()
        found = self._kinds.get(kind)
        if found is None or now >= found.until:
            if found is not None:
                found.tell(self)
            elif len(self._kinds) >= KINDS:
                self._forget(now)
            found = self._kinds[kind] = _Kind(now + EVERY)
        found.seen += 1
        if found.seen <= BURST:
            self.log(level, msg, *args, stacklevel=2, exc_info=exc_info)
        else:
            found.latest = (level, msg, args)
            found.arm(self)

    def rarely(self, kind: Hashable, level: int, msg: str, *args: object) -> None:
        """Log what an outage repeats: a `kind` once in `AGAIN` seconds, in between at DEBUG."""
        now = time.monotonic()
        if now < self._said.get(kind, 0.0):
            self.log(logging.DEBUG, msg, *args, stacklevel=2)
            return
        if len(self._said) >= KINDS:
            self._said.clear()
        self._said[kind] = now + AGAIN
        self.log(level, msg, *args, stacklevel=2)

    def _forget(self, now: float) -> None:
        kinds = self._kinds
        for kind in [kind for kind, item in kinds.items() if now >= item.until] or list(kinds):
            kinds.pop(kind).tell(self)


class _Kind:
    """What has been logged of one kind within one time."""

    __slots__ = ("latest", "seen", "timer", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.seen = 0
        self.latest: tuple[int, str, tuple[object, ...]] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def arm(self, log: Log) -> None:
        """See to it that what is not logged now is counted at the end, also if it was the last."""
        if self.timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            left = max(0.0, self.until - time.monotonic())
            self.timer = loop.call_later(left, self.tell, log)

    def tell(self, log: Log) -> None:
        """Say how many there were; once."""
        if self.timer is not None:
            self.timer.cancel()
        if self.latest is not None:
            level, msg, args = self.latest
            self.latest = None
            left = self.seen - BURST
            self.seen = BURST
            log.log(level, "%d more in %g s, the latest: " + msg, left, EVERY, *args)


def logger(name: str) -> Log:
    """Return anymq's logger `name`."""
    return Log(name)


class _Shown:
    """An argument of a log line."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return shown(str(self._value))

    def __repr__(self) -> str:
        return shown(repr(self._value))


def _argument(value: object) -> object:
    return value if isinstance(value, int | float) else _Shown(value)
