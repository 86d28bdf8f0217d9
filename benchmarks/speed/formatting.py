"""Text form of figures, for the terminal and the report alike."""

from __future__ import annotations

from .goals import Goal

NONE = "-"


def count(value: float | None) -> str:
    """Return a number of messages, rounded to three significant digits."""
    if value is None:
        return NONE
    if value < 1000:
        return f"{value:.3g}"
    digits = len(str(int(value))) - 3
    return f"{round(value, -digits):,.0f}"


def spread(ends: tuple[float, float] | None) -> str:
    """Return the lowest and the highest value."""
    return NONE if ends is None else f"{count(ends[0])} to {count(ends[1])}"


def deviation(middle: float | None, ends: tuple[float, float] | None) -> str:
    """Return the deviations of lowest and highest from the median, `-` for a single round."""
    if not middle or ends is None or ends[0] == ends[1]:
        return NONE
    low, high = (round((end / middle - 1) * 100) for end in ends)
    return f"{low:+}/{high:+} %"


def figure(value: float | None, unit: str) -> str:
    """Return a figure with its unit."""
    if value is None:
        return NONE
    if unit == "/s":
        return f"{count(value)}/s"
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def limit(goal: Goal) -> str:
    """Return the limit of a goal."""
    number = f"{goal.limit:,.0f}" if goal.limit >= 100 else f"{goal.limit:g}"
    unit = goal.unit if goal.unit == "/s" else f" {goal.unit}"
    return f"{'at most' if goal.at_most else 'at least'} {number}{unit}"


def milliseconds(value: float | None) -> str:
    """Return a latency in milliseconds."""
    return NONE if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def mebibytes(value: float | None) -> str:
    """Return bytes as MiB."""
    return NONE if value is None else f"{value / 1024 / 1024:,.0f} MiB"
