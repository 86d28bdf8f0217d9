"""Limits of strings, numbers and arrays: whether the reader's are at least as wide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .schema_tree import Schema

_ANY_TEXT = frozenset({"binary", "password"})
"""Formats that any text has."""
_DECIMAL = re.compile(r"decimal(?:\((-|\d+),(-|\d+)\))?")
"""The format of decimal numbers, with the most digits and decimal places."""
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def string_problems(written: Schema, read: Schema) -> list[str]:
    """Return why a reader of strings may refuse one that is written."""
    found = list(_sizes(written, read, "minLength", "maxLength"))
    pattern, text_format = read.get("pattern"), read.get("format")
    if pattern is not None and pattern != written.get("pattern"):
        found.append(f"only text that matches {pattern} is accepted")
    was = written.get("format")
    if text_format not in (None, *_ANY_TEXT, was) and not _fewer_digits(was, text_format):
        found.append(
            f"text in the format {text_format} is read, "
            + (f"the format {was} is written" if was else "any text is written")
        )
    return found


def array_problems(written: Schema, read: Schema) -> list[str]:
    """Return why a reader of arrays may refuse one, apart from its items."""
    found = list(_sizes(written, read, "minItems", "maxItems"))
    if read.get("uniqueItems") and not written.get("uniqueItems"):
        found.append("items that repeat are not accepted")
    return found


def number_problems(written: Schema, read: Schema) -> list[str]:
    """Return why a reader of numbers may refuse one that is written."""
    whole = written.get("type") == "integer"
    found: list[str] = []
    for keyword, exclusive, sign in (
        ("minimum", "exclusiveMinimum", 1),
        ("maximum", "exclusiveMaximum", -1),
    ):
        theirs = _bound(read, keyword, exclusive, sign, whole=whole)
        ours = _bound(written, keyword, exclusive, sign, whole=whole)
        if theirs is None or (ours is not None and ours >= theirs):
            continue
        limits = [f"{_SIGNS[key]} {read[key]}" for key in (keyword, exclusive) if key in read]
        found.append(f"only numbers {' and '.join(limits)} are accepted")
    ours_format, theirs_format = written.get("format"), read.get("format")
    if theirs_format not in (None, ours_format) and not _fewer_digits(ours_format, theirs_format):
        found.append(f"only numbers of the format {theirs_format} are accepted")
    step, ours_step = read.get("multipleOf"), written.get("multipleOf")
    if step is not None and not (
        (whole and step == 1) or (ours_step is not None and _exact(ours_step) % _exact(step) == 0)
    ):
        found.append(f"only multiples of {step} are accepted")
    return found


def _fewer_digits(written: Any, read: Any) -> bool:
    """Whether both are formats of decimal numbers, the written one with digits that are read."""
    ours, theirs = (_DECIMAL.fullmatch(str(each)) for each in (written, read))
    if ours is None or theirs is None:
        return False
    most, places, our_most, our_places = (
        None if each in (None, "-") else int(each) for each in (*theirs.groups(), *ours.groups())
    )
    if most is not None and (our_most is None or our_most > most):
        return False
    if places is None:
        return True
    if our_places is None or our_places > places:
        return False
    return most is None or our_most is None or our_most - our_places <= most - places


def _sizes(written: Schema, read: Schema, least: str, most: str) -> Iterator[str]:
    if read.get(least, 0) > written.get(least, 0):
        yield f"{least} {read[least]} is required, {written.get(least, 0)} is written"
    if most in read and (most not in written or written[most] > read[most]):
        yield f"{most} {read[most]} is accepted, {written.get(most, 'any size')} is written"


def _bound(
    schema: Schema, keyword: str, exclusive: str, sign: int, *, whole: bool
) -> tuple[Fraction, bool] | None:
    """Return the lower bound and whether it is exclusive; of an upper one with its `sign` turned.

    The greater of two is the stricter one.
    """
    found: list[tuple[Fraction, bool]] = []
    for key in (keyword, exclusive):
        if (value := schema.get(key)) is None:
            continue
        bound = _exact(value) * sign
        if not whole:
            found.append((bound, key == exclusive))
        elif key == exclusive:
            found.append((Fraction(bound.__floor__() + 1), False))
        else:
            found.append((Fraction(bound.__ceil__()), False))
    return max(found, default=None)


def _exact(value: Any) -> Fraction:
    return Fraction(str(value))
