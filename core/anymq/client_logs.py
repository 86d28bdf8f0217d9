"""`calm`: what a client library repeats in an outage is logged once a minute.

aiokafka writes hundreds of lines a second while its broker is away. anymq says the same itself, a
line for each subscription.
"""

from __future__ import annotations

import logging
import time

EVERY = 60.0
"""Seconds in which one place in the client's code may log one line."""
PLACES = 1000
"""Places that are told apart at a time."""


class Calm(logging.Filter):
    """Lets a place in the code warn once in `EVERY`, without its traceback, and counts the rest.

    Everything passes where the logger is set to DEBUG.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self._places: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or self._logger.isEnabledFor(logging.DEBUG):
            return True
        now = time.monotonic()
        place = (record.pathname, record.lineno)
        until, left_out = self._places.get(place, (0.0, 0))
        if now < until:
            self._places[place] = (until, left_out + 1)
            return False
        if len(self._places) >= PLACES:
            self._places.clear()
        self._places[place] = (now + EVERY, 0)
        text = record.getMessage()
        record.msg, record.args = "%s", (f"{text} ({left_out} more)" if left_out else text,)
        record.exc_info = record.exc_text = None
        return True


def calm(library: str) -> None:
    """Calm the loggers of the client library whose name is `library`, and begins with `library.`"""
    known = logging.root.manager.loggerDict
    for name in [library, *(name for name in known if name.startswith(f"{library}."))]:
        logger = logging.root.getChild(name)
        if not any(isinstance(found, Calm) for found in logger.filters):
            logger.addFilter(Calm(logger))
