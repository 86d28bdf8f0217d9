"""What goes wrong, one line each on standard error."""

from __future__ import annotations

import logging
import sys


def show_warnings(name: str) -> None:
    """Show what anymq warns of.

    Dead letters are no news, here they are part of the business; and what the client libraries say
    for themselves, anymq says better.
    """
    logging.basicConfig(level=logging.CRITICAL, format=f"{name}: %(message)s")
    for source in ("anymq", "asyncio"):
        logging.getLogger(source).setLevel(logging.WARNING)
    logging.getLogger("anymq.dead_letters").setLevel(logging.ERROR)


def complain(name: str, errors: BaseExceptionGroup[BaseException]) -> None:
    """Show the first of `errors`."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
