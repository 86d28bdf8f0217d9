"""Supervised tasks, and the translation of exceptions that are not an `Exception`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from .errors import TransientError, text_of
from .logs import logger

log = logger("anymq")

T = TypeVar("T")


def is_cancelled() -> bool:
    """Whether the current task has been cancelled.

    A `CancelledError` in a task that has not been cancelled is an error.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def fault(error: BaseException, who: str) -> Exception:
    """Return `error`, raised by `who`, as an `Exception`.

    Raises `error` itself if it is the cancellation of the current task or the end of the process.
    Any other `BaseException` becomes a `TransientError`, such as an unrequested `CancelledError` or
    a panic of an extension module.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise error
    if isinstance(error, asyncio.CancelledError) and is_cancelled():
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
    """Run `work` in a task. If it ends with an error, log that once and call `ended`."""

    def check(task: asyncio.Task[None]) -> None:
        if task.cancelled() and task.cancelling():
            return
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        log.error(
            "task %s ended unexpectedly: %s",
            name,
            text_of(error) if error else "CancelledError",
            exc_info=error,
        )
        if ended is not None:
            ended()

    task = asyncio.get_running_loop().create_task(work, name=name, context=context)
    task.add_done_callback(check)
    return task


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`. If the caller is cancelled, `work` runs to its end before that.

    A second cancellation leaves it to itself.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, because the cancellation takes precedence
        raise
