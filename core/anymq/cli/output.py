"""`Output`: results on standard output, remarks on standard error.

With `--json` each result is one line, an envelope: `{"anymq": 1, "kind": KIND, "data": DATA}`.
`anymq` is the version of the envelope, `kind` says how to read `data`. A command that yields
several results, such as messages, writes an envelope for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..logs import escaped, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

UNKNOWN = "-"
"""The cell of a value that the backend cannot know."""
WIDE = 100_000
"""The width of a table that no terminal shows, in characters: nothing is wrapped or cut."""


class Output:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def result(self, kind: str, data: Any, text: str | None = None) -> None:
        """Write one result: the envelope with `--json`, otherwise `text`, if there is any."""
        if self.as_json:
            self.write(envelope(kind, data))
        elif text is not None:
            self.write(text)

    def table(
        self, kind: str, data: Any, columns: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> None:
        """Write one result: `data` in an envelope with `--json`, otherwise a table.

        None in a row is shown as `-`. A column of numbers is set to the right. Control characters
        are escaped.
        """
        if self.as_json:
            self.result(kind, data)
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for index, name in enumerate(columns):
            given = [row[index] for row in rows if row[index] is not None]
            numeric = bool(given) and all(isinstance(value, int | float) for value in given)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.write("\n".join(line.rstrip() for line in self._rendered(table).splitlines()))

    def styled(self, text: Text) -> None:
        """Write `text`, on a terminal with its styles."""
        self.write(self._rendered(text, soft_wrap=True).removesuffix("\n"))

    def facts(self, kind: str, name: str, facts: Sequence[tuple[str, object]]) -> None:
        """Write a table of names and values about the thing `name` of this kind, for people."""
        rows = [[fact, None if value is None else str(value)] for fact, value in facts]
        self.table("", None, [kind.upper(), name], rows)

    def write(self, line: str) -> None:
        """Write `line` to standard output at once, so that a reader of a pipe sees it."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Write a remark to standard error, unless `--quiet`."""
        if not self.quiet:
            print(shown(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Write a warning to standard error, also with `--quiet`."""
        print(f"warning: {shown(text)}", file=sys.stderr, flush=True)

    def console(self) -> Console:
        """Return a console on standard output; without a terminal nothing is wrapped."""
        from rich.console import Console

        return Console(soft_wrap=False, width=None if sys.stdout.isatty() else WIDE)

    def _rendered(self, item: Table | Text, *, soft_wrap: bool = False) -> str:
        """Return what is to be written, because rich's own writing ends the process in a pipe."""
        console = self.console()
        with console.capture() as written:
            console.print(item, markup=False, highlight=False, soft_wrap=soft_wrap)
        return written.get()

    def progress(self, doing: str, total: int | None) -> Progress:
        """Return a progress bar on standard error, to be entered; shown only on a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            disable=self.quiet or not console.is_terminal,
            transient=True,
        )
        progress.add_task(doing, total=total)
        return progress


def envelope(kind: str, data: Any) -> str:
    """Return one result as a line of JSON, in characters that standard output can express."""
    content = {"anymq": 1, "kind": kind, "data": data}
    return json.dumps(content, ensure_ascii=not can_write("✓"), default=_json)


def can_write(text: str) -> bool:
    """Whether standard output can express `text` without escapes."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def lines_shown(text: str) -> str:
    """Return `text`, of several lines, with the control characters of each line escaped."""
    return "\n".join(escaped(line.replace("\t", "    ")) for line in text.splitlines())


def duration(seconds: float | None) -> str | None:
    """Return `seconds` for people, such as `4.2 s`, `3 min`, `5 h` or `2 d`."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    for unit, size in (("min", 60), ("h", 3600), ("d", 86400)):
        if seconds < {"min": 7200, "h": 172800}.get(unit, float("inf")):
            return f"{seconds / size:.0f} {unit}"
    raise AssertionError(seconds)


def size(count: int | None) -> str | None:
    """Return a number of bytes for people, such as `17 kB`."""
    if count is None:
        return None
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _cell(value: object) -> Any:
    from rich.text import Text

    return Text(UNKNOWN if value is None else shown(str(value)))


def _json(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")
