"""`anymq doctor`: everything between here and the broker, checked, with the fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from ..diagnosis import PREFIX, diagnose
from ..driver.checks import Check, CheckOutcome
from ..logs import shown
from .common import DEFAULT, Common
from .failures import EXIT_FAILED, EXIT_USAGE, UsageError
from .output import can_write

MARKS: dict[CheckOutcome, tuple[str, str, str]] = {
    "ok": ("✓", "ok  ", "green"),
    "warning": ("!", "warn", "yellow"),
    "failed": ("✗", "FAIL", "red"),
    "unknown": ("?", "?   ", "cyan"),
    "skipped": ("-", "-   ", "dim"),
}
"""By outcome its mark, the one for an encoding without that character, and its style."""
NAME_WIDTH = 22
SETTINGS = ("URL", "adapter", "options")
"""The checks that ask no server: what they find wrong is the configuration."""


async def doctor(
    url: Annotated[str | None, Parameter(show_default=False)] = None,
    /,
    *,
    prefix: str = PREFIX,
    common: Common = DEFAULT,
) -> int:
    """Check the way to the broker, its settings and your permissions; say how to mend what fails.

    Name resolution, TCP and TLS of each host, the credentials, the server's version, settings that
    lose messages, limits, the clock, and every permission that anymq needs. The permissions are
    tried on a temporary topic, which is deleted; with `declare=false` in the URL nothing is
    created. Exits with 1 if a check fails, with 2 if the URL or an option is wrong; warnings do
    not count.

    Parameters
    ----------
    url
        The broker's URL; without it, the broker is found as by any other command.
    prefix
        The beginning of the temporary topic's name, for a user whose rights end with a prefix.
    """
    if url == "":
        raise UsageError("the URL is empty: is the variable in it set?")
    if url is not None and common.names_a_broker:
        raise UsageError("the broker is named twice; give the URL alone")
    checks: list[Check] = []
    async with aclosing(_diagnosis(url, prefix, common)) as diagnosis:
        async for check in diagnosis:
            checks.append(check)
            if not common.json:
                _write(check, common)
    common.output.result("checks", [asdict(check) for check in checks])
    found = Counter(check.outcome for check in checks)
    common.output.note(", ".join(f"{found[each]} {each}" for each in MARKS if found[each]))
    return _code(checks)


def _diagnosis(url: str | None, prefix: str, common: Common) -> AsyncGenerator[Check, None]:
    if common.app is None:
        return diagnose(url or common.needed_url, prefix=prefix)
    from .loading import load_app

    return load_app(common.app).diagnose(prefix=prefix)


def _write(check: Check, common: Common) -> None:
    """Write one check, and its fix on a line of its own."""
    mark, plain, style = MARKS[check.outcome]
    text = Text().append(mark if can_write(mark) else plain, style=style)
    margin = " " * (len(text) + NAME_WIDTH + 2)
    text.append(f" {check.name:{NAME_WIDTH}} {_line(check.detail)}".rstrip())
    if check.fix:
        text.append(f"\n{margin}fix: {_line(check.fix)}")
    common.output.styled(text)


def _line(text: str) -> str:
    return shown(" ".join(text.split()))


def _code(checks: Sequence[Check]) -> int:
    failed = [check.name for check in checks if check.outcome == "failed"]
    if any(name in SETTINGS for name in failed):
        return EXIT_USAGE
    return EXIT_FAILED if failed else 0
