"""The tree of a flow as text, a line for each message and for each failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ..logs import shown
from ..message import Message
from .flow_tree import Failure, Pending, Step
from .output import duration

MOST_BODY = 200
"""The most characters of a body that are shown."""

Marks = tuple[str, str, str, str, str, str]
LINES: Marks = ("├─ ", "└─ ", "│  ", "   ", "✗ ", "↻ ")
ASCII: Marks = ("|- ", "`- ", "|  ", "   ", "x ", "~ ")
"""The marks where standard output cannot encode `LINES`."""


def marks_for(encoding: str | None) -> Marks:
    """Return the marks that `encoding` has."""
    try:
        "".join(LINES).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return LINES


def lines_of(steps: Sequence[Step], *, bodies: bool, marks: Marks = LINES) -> Iterator[str]:
    """Yield the lines of the tree; `steps` are in order, as `in_order` returns them."""
    branch, last, through, blank, failed, pending = marks
    started = steps[0].message.time
    followed = _followed([step.depth for step in steps])
    above: list[bool] = []  # for each depth above, whether another message of it follows
    for step, more, following in zip(steps, followed, [*steps[1:], None], strict=True):
        del above[step.depth :]
        lead = "".join(through if each else blank for each in above[1:])
        yield (
            lead + ((branch if more else last) if step.depth else "") + shown(_title(step, started))
        )
        if step.depth:
            lead += through if more else blank
        above.append(more)
        lead += through if following is not None and following.depth > step.depth else blank
        if bodies and step.message.body:
            yield lead + shown(_body(step.message))
        for failure in step.failures:
            yield lead + failed + shown(_failure(failure))
        for each in step.pending:
            yield lead + pending + shown(_pending(each))


def _followed(depths: Sequence[int]) -> list[bool]:
    """Return for each message in order whether another of the same cause follows."""
    found: list[bool] = []
    open_depths: list[int] = []
    for depth in reversed(depths):
        while open_depths and open_depths[-1] > depth:
            open_depths.pop()
        found.append(bool(open_depths) and open_depths[-1] == depth)
        if not found[-1]:
            open_depths.append(depth)
    return found[::-1]


def _title(step: Step, started: datetime | None) -> str:
    message = step.message
    parts = [step.topic, message.id]
    if message.type not in (None, step.topic):
        parts.append(str(message.type))
    if message.key not in (None, message.id):
        parts.append(f"key {message.key}")
    if message.time is not None:
        parts.append(_when(message.time, started if step.depth else None))
    if not step.depth and message.causation_id is not None:
        parts.append(f"caused by {message.causation_id}")
    if len(step.positions) > 1:
        parts.append(f"{len(step.positions)} copies")
    if not step.positions:
        parts.append("(the message itself is no longer stored, or its topic was not read)")
    return "  ".join(parts)


def _when(time: datetime, started: datetime | None) -> str:
    """Return the time since the first message, or the whole time of that one."""
    if started is None:
        return time.isoformat(sep=" ", timespec="milliseconds")
    seconds = (time - started).total_seconds()
    if abs(seconds) < 1:
        return f"{seconds * 1000:+.0f} ms"
    return f"{'-' if seconds < 0 else '+'}{duration(abs(seconds))}"


def _body(message: Message) -> str:
    text = message.body.decode(errors="backslashreplace")
    return text if len(text) <= MOST_BODY else f"{text[:MOST_BODY]}…"


def _failure(failure: Failure) -> str:
    letter = failure.letter
    attempts = "" if letter.attempts is None else f" at attempt {letter.attempts}"
    error = (letter.error_type or "").removeprefix("builtins.")
    text = f"{error}: {letter.error_message}" if error else letter.reason or "no reason given"
    where = f"{failure.state}, in {letter.message.topic} at {letter.position}"
    return f"{letter.group or 'broadcast'}: dead letter{attempts}: {text} ({where})"


def _pending(pending: Pending) -> str:
    return f"{pending.group}: attempt {pending.attempts}, not settled"
