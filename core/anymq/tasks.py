"""Tasks that do not end unseen, and what a client or a handler raises that is no `Exception`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from .errors import TransientError, text_of
from .logs import logger

log = logger("anymq")


def told_to_end() -> bool:
    """Whether the current task has been cancelled; a `CancelledError` without it is an error."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def fault(error: BaseException, who: str) -> Exception:
    """Return what `who` raised as an `Exception`.

    Raises it where it is no fault of theirs: the cancellation of the current task, or the end of
    the process. A `CancelledError` that nobody asked for and a panic become a `TransientError`.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error
    if isinstance(error, asyncio.CancelledError) and told_to_end():
        raise error
    translated = TransientError(f"{who} raised {type(error).__name__}: {text_of(error)}")
    translated.__cause__ = error
    return translated


def supervise(
    work: Coroutine[Any, Any, None],
    *,
    name: str,
    ended: Callable[[], None] | None = None,
    context: Context | None = None,
) -> asyncio.Task[None]:
    """Run `work` in a task. Should it end by an error, that is logged once, and `ended` called."""

    def look(task: asyncio.Task[None]) -> None:
        if task.cancelled() and task.cancelling():
            return
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        log.error(
            "%s ended by itself: %s",
            name,
            text_of(error) if error else "it was cancelled",
            exc_info=error,
        )
        if ended is not None:
            ended()

    task = asyncio.get_running_loop().create_task(work, name=name, context=context)
    task.add_done_callback(look)
    return task
