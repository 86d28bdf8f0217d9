"""`require_yes`: destructive commands say how much they would destroy, and want `--yes`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..url import URL
from .common import Common
from .failures import CommandError


def require_yes(yes: bool, impact: str, command: Sequence[str], common: Common) -> None:
    """Raise `CommandError` with the impact and the command to type, unless `--yes` is given."""
    if not yes:
        typed = shlex.join(["anymq", *command, *_broker_options(common), "--yes"])
        raise CommandError(f"{impact}; nothing was changed", hint=f"to do it, type: {typed}")


def plural(count: int | None, noun: str) -> str:
    """Return a number of things for people, such as `1 message` or `2 messages`."""
    if count is None:
        return f"an unknown number of {noun}s"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def spared(dead_letters: int) -> str:
    """Return that dead letters stay, as the end of a sentence; empty if there are none."""
    if not dead_letters:
        return ""
    return f"; {plural(dead_letters, 'dead letter')} {'stays' if dead_letters == 1 else 'stay'}"


def _broker_options(common: Common) -> list[str]:
    if common.url is not None:
        return ["--url", str(URL.parse(common.url))]
    if common.context is not None:
        return ["--context", common.context]
    return [] if common.app is None else ["--app", common.app]
