"""Warnings and errors, one line each on standard error."""

from __future__ import annotations

import logging
import sys


def show_warnings(name: str) -> None:
    """Show the warnings of anymq.

    Dead letters are hidden, because they are normal in this system. So are logs of the client
    libraries, because anymq logs the same events.
    """
    logging.basicConfig(level=logging.CRITICAL, format=f"{name}: %(message)s")
    for source in ("anymq", "asyncio"):
        logging.getLogger(source).setLevel(logging.WARNING)
    logging.getLogger("anymq.dead_letters").setLevel(logging.ERROR)


def complain(name: str, errors: BaseExceptionGroup[BaseException]) -> None:
    """Print the first of `errors`."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
