"""`logger`: anymq's loggers, in which received text cannot forge a line or fill the disk.

Ids, keys, reasons and errors may contain any text of a publisher. So the control characters in
every argument of a log line are escaped, and long arguments are cut. Events that may occur for
every message are logged with `seldom`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Hashable
from typing import Any

MAX_ARGUMENT = 1000
"""The most characters of one argument that are logged."""
BURST = 10
"""Lines of a kind that are logged within `SUMMARY_SECONDS`, before the rest are counted."""
SUMMARY_SECONDS = 10.0
"""Seconds between two summaries of a kind."""
REPEAT_SECONDS = 60.0
"""Seconds after which `rarely` logs a kind again."""
MAX_KINDS = 1000
"""The most kinds that are tracked at a time."""

# Control characters, separators that some viewers show as line ends, and direction overrides.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """Return `text` for a log line: without control characters, cut after `MAX_ARGUMENT`."""
    if len(text) > MAX_ARGUMENT:
        text = f"{text[:MAX_ARGUMENT]}… ({len(text)} characters)"
    return escaped(text)


def escaped(text: str) -> str:
    """Return `text` with its control characters escaped."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose arguments are escaped and cut by `shown`."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})
        self._kinds: dict[Hashable, _Kind] = {}
        self._quiet_until: dict[Hashable, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As `Logger.log`; `debug`, `info`, `warning` and `error` call it too."""
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
        """Log an event that may occur for every message.

        The first `BURST` lines of a `kind` within `SUMMARY_SECONDS` are logged. At the end of that
        time, one line follows with the number of the others and the latest of them. The first
        lines include the traceback of `exc_info`.
        """
        if not self.isEnabledFor(level):
            return
        now = time.monotonic()
        found = self._kinds.get(kind)
        if found is None or now >= found.until:
            if found is not None:
                found.summarize(self)
            elif len(self._kinds) >= MAX_KINDS:
                self._drop_kinds(now)
            found = self._kinds[kind] = _Kind(now + SUMMARY_SECONDS)
        found.seen += 1
        if found.seen <= BURST:
            self.log(level, msg, *args, stacklevel=2, exc_info=exc_info)
        else:
            found.latest = (level, msg, args)
            found.schedule(self)

    def rarely(self, kind: Hashable, level: int, msg: str, *args: object) -> None:
        """Log a repeated event at `level` once in `REPEAT_SECONDS`, and at DEBUG in between."""
        now = time.monotonic()
        if now < self._quiet_until.get(kind, 0.0):
            self.log(logging.DEBUG, msg, *args, stacklevel=2)
            return
        if len(self._quiet_until) >= MAX_KINDS:
            self._quiet_until.clear()
        self._quiet_until[kind] = now + REPEAT_SECONDS
        self.log(level, msg, *args, stacklevel=2)

    def _drop_kinds(self, now: float) -> None:
        """Stop tracking the kinds whose time is over, or all if there is none."""
        kinds = self._kinds
        for kind in [kind for kind, item in kinds.items() if now >= item.until] or list(kinds):
            kinds.pop(kind).summarize(self)


class _Kind:
    """The lines of one kind within one period of `SUMMARY_SECONDS`."""

    __slots__ = ("latest", "seen", "timer", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.seen = 0
        self.latest: tuple[int, str, tuple[object, ...]] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def schedule(self, log: Log) -> None:
        """Schedule the summary for the end of the period, in case no further line triggers it."""
        if self.timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            remaining = max(0.0, self.until - time.monotonic())
            self.timer = loop.call_later(remaining, self.summarize, log)

    def summarize(self, log: Log) -> None:
        """Log the number of lines that were not logged, once."""
        if self.timer is not None:
            self.timer.cancel()
        if self.latest is not None:
            level, msg, args = self.latest
            self.latest = None
            omitted = self.seen - BURST
            self.seen = BURST
            log.log(level, "%d more in %g s, the latest: " + msg, omitted, SUMMARY_SECONDS, *args)


def logger(name: str) -> Log:
    """Return anymq's logger `name`."""
    return Log(name)


class _Shown:
    """An argument of a log line, escaped when it is formatted."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return shown(str(self._value))

    def __repr__(self) -> str:
        return shown(repr(self._value))


def _argument(value: object) -> object:
    return value if isinstance(value, int | float) else _Shown(value)
