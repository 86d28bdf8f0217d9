"""What goes wrong, one line each on standard error."""

from __future__ import annotations

import logging
import sys


def show_warnings(name: str) -> None:
    """Show what anymq warns of, except for dead letters: here they are part of the business."""
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s")
    logging.getLogger("anymq.dead_letters").setLevel(logging.ERROR)


def complain(name: str, errors: BaseExceptionGroup[BaseException]) -> None:
    """Show the first of `errors`."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
