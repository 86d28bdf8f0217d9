"""Values on the command line: durations, sizes, rates, times and start positions.

Each type, such as `Duration`, is an annotation of a parameter. Its function, such as `duration_of`,
raises `ValueError` with the forms that are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from ..driver.specs import Start

if TYPE_CHECKING:
    from cyclopts import Token

T = TypeVar("T")

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
"""The units of a duration, in seconds."""
SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
"""The units of a size, in bytes."""
STANDARD_INPUT = "-"
"""The name that stands for standard input."""
LONGEST = 366 * 100
"""The longest duration, in days."""

_AMOUNT = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_PART = re.compile(rf"({_AMOUNT})(ms|[smhdw])")
_DURATION = re.compile(rf"(?:{_AMOUNT}(?:ms|[smhdw]))+")
_SIZE = re.compile(rf"({_AMOUNT}) ?([A-Za-z]*)")
_LAST = re.compile(r"-[1-9][0-9]{0,8}")
_RATE = re.compile(rf"({_AMOUNT})(?:/(ms|[smhdw]))?")


def duration_of(text: str) -> timedelta:
    """Return the duration `text`, such as `5s`, `10m`, `1h30m`, `7d` or `250ms`."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write a number and a unit: 250ms 5s 10m 2h 7d")
    seconds = sum(float(amount) * UNITS[unit] for amount, unit in _PART.findall(text))
    if seconds > LONGEST * UNITS["d"]:
        raise ValueError(f"{text!r} is longer than a century")
    return timedelta(seconds=seconds)


def size_of(text: str) -> int:
    """Return the number of bytes in `text`, such as `500kB`, `1GB`, `1GiB` or `1000`."""
    found = _SIZE.fullmatch(text)
    units = {unit.lower(): size for unit, size in SIZES.items()}
    unit = found[2].lower() if found else "?"
    unit = f"{unit}b" if unit in ("k", "m", "g", "t") else unit
    if found is None or unit not in units:
        raise ValueError(f"{text!r} is no size; write a number and a unit: 500kB 20MB 1GB 1GiB")
    return round(float(found[1]) * units[unit])


def rate_of(text: str) -> float:
    """Return the number for each second in `text`, such as `50/s`, `100/m` or `50`."""
    found = _RATE.fullmatch(text)
    amount = float(found[1]) if found else 0.0
    if found is None or amount <= 0:
        raise ValueError(f"{text!r} is no rate; write a positive number and a unit: 50/s 100/m")
    return amount / UNITS[found[2] or "s"]


def time_of(text: str) -> datetime:
    """Return the time `text`: a date and time, or a duration before now, such as `-1h`.

    A leading `@` is accepted. A time without a zone is in the zone of this computer.
    """
    plain = text.removeprefix("@")
    if plain == "now":
        return datetime.now(UTC)
    if plain.startswith("-"):
        return datetime.now(UTC) - duration_of(plain[1:])
    try:
        return datetime.fromisoformat(plain).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no time; write @-1h, @2026-11-28T10:00 or @2026-11-28T10:00Z"
        ) from None


def since_of(text: str) -> datetime:
    """Return the time `text` as `time_of` does, or the time that is the duration `text` ago."""
    return time_of(f"-{text}" if _DURATION.fullmatch(text) else text)


def start_of(text: str) -> Start:
    """Return the start position `text`: `start`, `end`, `@TIME`, or the position of a message."""
    if text.startswith("@"):
        return time_of(text)
    if not text or text.startswith("-"):
        raise ValueError(f"{text!r} is no start; write start, end, @-1h, @TIME or a position")
    return {"start": "earliest", "end": "latest"}.get(text, text)


def input_file_of(text: str) -> str:
    """Return the file name `text`, or `-` for standard input; not a mistyped option."""
    if text.startswith("-") and text != STANDARD_INPUT:
        raise ValueError(f"there is no option {text!r}; write ./{text} for a file of that name")
    return text


class Last(int):
    """The start position of so many messages before the end."""


def from_of(text: str) -> Start | Last:
    """Return the start position `text`: as in `start_of`, or `-N` for the last N messages."""
    if _LAST.fullmatch(text):
        return Last(text[1:])
    if not text or text.startswith("-"):
        raise ValueError(f"{text!r} is no start; write start, end, -10, @-1h, @TIME or a position")
    return start_of(text)


def converter(parse: Callable[[str], T]) -> Parameter:
    """Return the annotation of a parameter whose text `parse` reads."""

    def convert(_type: Any, tokens: Sequence[Token]) -> T:
        return parse(tokens[0].value)

    return Parameter(converter=convert, n_tokens=1, accepts_keys=False)


Duration = Annotated[timedelta, converter(duration_of)]
"""A duration, such as `5s`, `10m`, `2h` or `7d`."""
Size = Annotated[int, converter(size_of)]
"""A number of bytes, such as `500kB` or `1GB`."""
Rate = Annotated[float, converter(rate_of)]
"""A number for each second, such as `50/s`."""
Time = Annotated[datetime, converter(time_of)]
"""A time, such as `@-1h` or `@2026-11-28T10:00Z`."""
InputFile = Annotated[str, converter(input_file_of), Parameter(allow_leading_hyphen=True)]
"""A file to read, or `-` for standard input."""
StartAt = Annotated[Start, converter(start_of)]
"""A start position: `start`, `end`, `@TIME`, or the position of a message."""
From = Annotated[Start | Last, converter(from_of), Parameter(allow_leading_hyphen=True)]
"""A start position of reading: as `StartAt`, or `-10` for the last ten messages."""
