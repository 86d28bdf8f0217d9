"""Errors on the command line: one line, a hint where there is one, and an exit code."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence

from ..errors import AnymqError, ConfigurationError, text_of
from ..logs import shown
from .output import envelope
from .process import EXIT_INTERRUPTED, Interrupted

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
"""The exit code of `anymq check` for wrong usage: its 2 means that something is critical."""


class CommandError(Exception):
    """A failure of a command itself, such as a missing `--yes`; `hint` says what to do."""

    def __init__(self, text: str, *, hint: str | None = None, code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.hint = hint
        self.code = code


class UsageError(CommandError):
    """Arguments that parse but make no sense together, or have a wrong value."""

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text, hint=hint, code=EXIT_USAGE)


def report(error: BaseException, tokens: Sequence[str], *, code: int | None = None) -> int:
    """Write `error` to standard error and return the exit code.

    With `--json` among `tokens` an envelope with the error goes to standard output as well. With
    `--traceback` the traceback precedes the line.
    """
    if isinstance(error, KeyboardInterrupt):
        return error.code if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    if "--traceback" in options:
        traceback.print_exception(error)
    text, hint = _text(error), getattr(error, "hint", None)
    print(f"anymq: {text}", file=sys.stderr)
    if hint:
        print(f"hint: {shown(hint)}", file=sys.stderr)
    chosen = _code(error) if code is None else code
    if "--json" in options:
        failed = {"type": type(error).__name__, "message": text, "hint": hint, "exit": chosen}
        with contextlib.suppress(OSError):  # standard error says what happened
            print(envelope("error", failed))
    return chosen


def _code(error: BaseException) -> int:
    if isinstance(error, CommandError):
        return error.code
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED


def _text(error: BaseException) -> str:
    text = shown(" ".join(text_of(error).split()))
    if isinstance(error, AnymqError | CommandError) or type(error).__module__.startswith(
        "cyclopts"
    ):
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return shown(f"{where}{error.strerror}")
    return f"{type(error).__name__}: {text} (unexpected; --traceback shows where)"
