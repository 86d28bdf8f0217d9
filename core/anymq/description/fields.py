"""The fields of objects: whether a reader takes those that are written, and gets those it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .schema_tree import Schema, constraints

P = TypeVar("P")

Compare = Callable[[Any, Any, str], list[P]]
Report = Callable[[str, str], P]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Fields:
    """The fields that one schema of an object declares, and what it says about all others."""

    def __init__(self, schema: Schema) -> None:
        self.named: Mapping[str, Any] = schema.get("properties", {})
        self.required: list[str] = list(schema.get("required", ()))
        self.patterns: Mapping[str, Any] = schema.get("patternProperties", {})
        self.names: Any = schema.get("propertyNames")
        self.others: Any = schema.get("additionalProperties")

    @property
    def unnamed(self) -> Any:
        """The schema of the fields that a writer adds by names of its own; False if it adds none.

        A writer of declared fields adds none unless its schema says that it does.
        """
        if self.others is None:
            return not (self.named or self.patterns) or False
        return self.others

    def matching(self, name: str) -> list[Any]:
        """Return the schemas of the patterns that match `name`."""
        return [each for pattern, each in self.patterns.items() if re.search(pattern, name)]


def object_problems(
    compare: Compare[P],
    report: Report[P],
    takes_name: Callable[[Any, str], bool],
    written: Schema,
    read: Schema,
    path: str,
) -> Iterator[P]:
    """Yield why a reader of objects may refuse one that is written."""
    ours, theirs = Fields(written), Fields(read)
    yield from _missing(report, ours, theirs, path)
    for name, schema in ours.named.items():
        at = below(path, name)
        wanted = [theirs.named[name]] if name in theirs.named else theirs.matching(name)
        if not wanted:
            if theirs.others is False:
                yield report(at, "a field of this name is not accepted")
                continue
            wanted = [True if theirs.others is None else theirs.others]
        for each in wanted:
            yield from compare(schema, each, at)
        if theirs.names is not None and not takes_name(theirs.names, name):
            yield report(at, "a field of this name is not accepted")
    yield from _unnamed(compare, report, ours, theirs, path)
    yield from _counts(report, written, read, ours, path)


def _missing(report: Report[P], ours: Fields, theirs: Fields, path: str) -> Iterator[P]:
    for name in theirs.required:
        if name in ours.required:
            continue
        missing = "may be missing" if name in ours.named or ours.unnamed is not False else "missing"
        yield report(below(path, name), f"the field is required, but {missing}")


def _unnamed(
    compare: Compare[P], report: Report[P], ours: Fields, theirs: Fields, path: str
) -> Iterator[P]:
    """Compare the fields that are written by names which the schema does not list."""
    others = True if theirs.others is None else theirs.others
    at = f"{path}.*"
    for pattern, schema in ours.patterns.items():
        if pattern in theirs.patterns:
            yield from compare(schema, theirs.patterns[pattern], at)
            continue
        yield from _other(compare, report, schema, others, at)
        if theirs.patterns:
            yield report(at, "the names of fields follow another pattern")
    unnamed = ours.unnamed
    if unnamed is not False:
        yield from _other(compare, report, unnamed, others, at)
        for name, schema in theirs.named.items():
            if name not in ours.named:
                yield from compare(unnamed, schema, below(path, name))
        if theirs.patterns:
            yield report(at, "the names of fields follow another pattern")
    if theirs.names is not None and (unnamed is not False or ours.patterns):
        names = {"type": "string", **constraints(_as_schema(ours.names))}
        yield from compare(names, theirs.names, at)


def _other(
    compare: Compare[P], report: Report[P], schema: Any, others: Any, at: str
) -> Iterator[P]:
    if others is False:
        yield report(at, "further fields are not accepted")
    else:
        yield from compare(schema, others, at)


def _counts(
    report: Report[P], written: Schema, read: Schema, ours: Fields, path: str
) -> Iterator[P]:
    least, most = read.get("minProperties", 0), read.get("maxProperties")
    if least > max(written.get("minProperties", 0), len(ours.required)):
        yield report(path, f"at least {least} fields are required")
    closed = len(ours.named) if ours.unnamed is False and not ours.patterns else None
    our_most = written.get("maxProperties", closed)
    if most is not None and (our_most is None or our_most > most):
        yield report(path, f"at most {most} fields are accepted")


def below(path: str, name: str) -> str:
    """Return the JSON path of the field `name` of the object at `path`."""
    return f"{path}.{name}" if _IDENTIFIER.fullmatch(name) else f"{path}[{name!r}]"


def _as_schema(schema: Any) -> Schema:
    return schema if isinstance(schema, Mapping) else {}
