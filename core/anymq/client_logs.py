"""`limit_repeats`: a rate limit for log lines that a client library repeats in an outage.

aiokafka writes hundreds of lines a second while its broker is unreachable. anymq logs the outage
itself, with one line for each subscription.
"""

from __future__ import annotations

import logging
import time

REPEAT_SECONDS = 60.0
"""Seconds within which one line of the client's code may log one warning."""
MAX_LINES = 1000
"""The most lines of code that are tracked at a time."""


class RepeatFilter(logging.Filter):
    """A filter that admits one warning per line of code in `REPEAT_SECONDS`, and counts the rest.

    The warning is logged without its traceback. All records pass if the logger is set to DEBUG.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self._lines: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or self._logger.isEnabledFor(logging.DEBUG):
            return True
        now = time.monotonic()
        line = (record.pathname, record.lineno)
        until, omitted = self._lines.get(line, (0.0, 0))
        if now < until:
            self._lines[line] = (until, omitted + 1)
            return False
        if len(self._lines) >= MAX_LINES:
            self._lines.clear()
        self._lines[line] = (now + REPEAT_SECONDS, 0)
        text = record.getMessage()
        record.msg, record.args = "%s", (f"{text} ({omitted} more)" if omitted else text,)
        record.exc_info = record.exc_text = None
        return True


def limit_repeats(library: str) -> None:
    """Add a `RepeatFilter` to the logger `library` and to all existing loggers below it."""
    known = logging.root.manager.loggerDict
    for name in [library, *(name for name in known if name.startswith(f"{library}."))]:
        logger = logging.root.getChild(name)
        if not any(isinstance(found, RepeatFilter) for found in logger.filters):
            logger.addFilter(RepeatFilter(logger))
