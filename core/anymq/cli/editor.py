"""`edited`: a text edited by the user in an editor."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .failures import CommandError, UsageError


def edited(text: str, *, suffix: str) -> tuple[str, Path]:
    """Return `text` as the user leaves it in $VISUAL or $EDITOR, and the file that has it.

    A line end that the editor adds at the end is removed. Raises `UsageError` without an editor,
    `CommandError` if it fails. Ctrl-C belongs to the editor while it runs, and the event loop
    stands still: close connections first.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        raise UsageError(
            "there is no editor: $VISUAL and $EDITOR are not set",
            hint="set one of them, or give the new body with --body FILE",
        )
    before = text.encode()
    descriptor, name = tempfile.mkstemp(prefix="anymq-", suffix=suffix)  # mode 0600
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(before)
    draft = Path(name)
    if code := _run([*shlex.split(command), name]):
        failure = f"the editor ended with exit code {code}; nothing was redriven"
        if draft.read_bytes() == before:
            draft.unlink()
            raise CommandError(failure)
        raise CommandError(failure, hint=f"your text is in {name}")
    try:
        new = draft.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{name} is not a text in UTF-8 any more") from error
    if new.endswith("\n") and not text.endswith("\n"):
        new = new.removesuffix("\n").removesuffix("\r")
    return new, draft


def _run(command: list[str]) -> int:
    try:
        with _interrupts_ignored():
            return subprocess.run(command, check=False).returncode  # noqa: S603 - the user's own
    except OSError as error:
        raise UsageError(f"the editor {command[0]!r} does not start: {error.strerror}") from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C in this process, without the editor inheriting that."""
    descriptor = signal.set_wakeup_fd(-1)
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(descriptor)
