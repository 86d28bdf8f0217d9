"""`--watch`: a result that is read and shown again and again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import TransientError
from .output import Output

T = TypeVar("T")

CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Clears a terminal, and what was scrolled out of it."""


async def show_repeatedly(
    read: Callable[[], Awaitable[T]],
    show: Callable[[T], None],
    *,
    every: float | None,
    output: Output,
) -> None:
    """Show what `read` returns once, or every so many seconds until Ctrl-C.

    On a terminal each result replaces the one before. While it watches, a broker that does not
    answer is a warning.
    """
    replace = every is not None and not output.as_json and sys.stdout.isatty()
    while True:
        try:
            found = await read()
        except TransientError as error:
            if every is None:
                raise
            output.warn(str(error))
        else:
            if replace:
                sys.stdout.write(CLEAR)
            show(found)
        if every is None:
            return
        await asyncio.sleep(every)
