"""A judge of payloads: whether what one JSON schema describes can be read by another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .bounds import array_problems, number_problems, string_problems
from .fields import object_problems
from .literals import accepts
from .schema_tree import (
    NEVER,
    Schema,
    SchemaTree,
    constraints,
    described,
    union_of,
    values_of,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A place in a payload, as a JSON path, and why what is written may not be readable there."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def problems(
    written: Any,
    read: Any,
    *,
    written_in: Schema | None = None,
    read_in: Schema | None = None,
) -> list[Problem]:
    """Return why a reader of the schema `read` may not read all that `written` describes.

    An empty list says that it reads everything. The judge is strict: where it cannot tell, it
    reports a problem. Fields that `written` does not declare count as never written, unless it
    allows additional properties. `written_in` and `read_in` are the documents that the references
    of the two schemas point into, by default the schemas themselves. Raises `ConfigurationError`
    for what is no JSON schema.
    """
    judge = _Judge(
        SchemaTree(written if written_in is None else written_in),
        SchemaTree(read if read_in is None else read_in),
    )
    return list(dict.fromkeys(judge.compare(written, read, "$")))


class _Judge:
    """Compares two trees in step. A pair of schemas inside itself is taken to fit."""

    def __init__(self, written: SchemaTree, read: SchemaTree) -> None:
        self._written = written
        self._read = read
        self._open: set[tuple[str, str]] = set()

    def compare(self, written: Any, read: Any, path: str) -> list[Problem]:
        """Return the problems at and below `path`."""
        pair = (_text(written), _text(read))
        if pair in self._open:
            return []
        self._open.add(pair)
        try:
            return list(
                self._compare(self._written.resolve(written), self._read.resolve(read), path)
            )
        finally:
            self._open.discard(pair)

    def takes_name(self, schema: Any, name: str) -> bool:
        """Whether the reader's `schema` of names accepts `name`."""
        return accepts(self._read, schema, name)

    def _compare(self, written: Schema, read: Schema, path: str) -> Iterator[Problem]:
        if not constraints(read) or written == NEVER:
            return
        if "allOf" in read:
            for part in read["allOf"]:
                yield from self.compare(written, part, path)
        elif "allOf" in written:
            # A value fits all parts, so it is enough if one of them can be read.
            yield from min((self.compare(part, read, path) for part in written["allOf"]), key=len)
        elif (values := values_of(written)) is not None:
            for value in values:
                if not accepts(self._read, read, value):
                    yield Problem(path, f"the value {value!r} is not accepted")
        elif (union := union_of(written)) is not None:
            for alternative in union[0]:
                limited = bool(constraints(union[1]))
                whole = {"allOf": [alternative, union[1]]} if limited else alternative
                yield from self.compare(whole, read, path)
        elif values_of(read) is not None:
            reason = f"{described(written)} is written, only {described(read)} is accepted"
            yield Problem(path, reason)
        elif (union := union_of(read)) is not None:
            yield from self._alternatives(written, read, union[0], path)
            yield from self.compare(written, union[1], path)
        else:
            yield from self._single(written, read, path)

    def _alternatives(
        self, written: Schema, read: Schema, union: Sequence[Any], path: str
    ) -> Sequence[Problem]:
        """Return the problems of the closest alternative; none if one of them reads it all."""
        alternatives = [self._read.resolve(each) for each in union]
        if "oneOf" in read and not _is_tagged(self._read, alternatives, written):
            return [Problem(path, "the field that selects the alternative is not written")]
        found: list[tuple[bool, int, Sequence[Problem]]] = []
        for alternative in alternatives:
            reasons = self.compare(written, alternative, path)
            if not reasons:
                return []
            if alternative.get("type") == written.get("type"):
                other = written.get("title") != alternative.get("title")
                found.append((other, len(reasons), reasons))
        if found:
            return min(found, key=lambda each: each[:2])[2]
        return [_mismatch(written, read, path)]

    def _single(self, written: Schema, read: Schema, path: str) -> Iterator[Problem]:
        kind, wanted = written.get("type"), read.get("type")
        if kind is None:
            if constraints(read) != constraints(written) or "$ref" in _text(read):
                yield Problem(path, f"any value is written, {described(read)} is read")
            return
        if wanted is not None and kind != wanted and (kind, wanted) != ("integer", "number"):
            yield _mismatch(written, read, path)
            return
        for keywords, check in _CHECKS.get(kind, ()):
            if not keywords.isdisjoint(read):
                yield from check(self, written, read, path)
        for keyword, value in constraints(read).items():
            if keyword == "contentSchema":
                yield from self.compare(written.get(keyword, True), value, path)
            elif keyword not in _HANDLED and (
                written.get(keyword) != value or "$ref" in _text(value)
            ):
                yield Problem(path, f"{keyword} limits what is accepted")


def _mismatch(written: Schema, read: Schema, path: str) -> Problem:
    if written.get("type") == "null":
        return Problem(path, "null is not accepted")
    return Problem(path, f"{described(written)} is written, {described(read)} is read")


def _is_tagged(tree: SchemaTree, alternatives: Sequence[Schema], written: Schema) -> bool:
    """Whether `written` declares a field whose value selects one of the alternatives, if any does.

    A field selects if every alternative lists the values that it has there.
    """
    tags: set[str] | None = None
    for alternative in alternatives:
        fields = alternative.get("properties", {})
        own = {name for name, each in fields.items() if values_of(tree.resolve(each)) is not None}
        tags = own if tags is None else tags & own
    return not tags or not tags.isdisjoint(written.get("properties", {}))


def _text(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True, default=str)


class _Items:
    """The schemas of the items of an array: of the first few, and of all others."""

    def __init__(self, schema: Schema) -> None:
        items = schema.get("items", True)
        if isinstance(items, list):
            self.first, self.rest = items, schema.get("additionalItems", True)
        else:
            self.first, self.rest = schema.get("prefixItems", []), items
        self.most: int | None = schema.get("maxItems")
        if self.rest is False:
            self.most = min(len(self.first), len(self.first) if self.most is None else self.most)

    def at(self, place: int) -> Any:
        """Return the schema of the item at `place`."""
        return self.first[place] if place < len(self.first) else self.rest


def _items(judge: _Judge, written: Schema, read: Schema, path: str) -> Iterator[Problem]:
    ours, theirs = _Items(written), _Items(read)
    first = max(len(ours.first), len(theirs.first))
    for place in range(first if ours.most is None else min(first, ours.most)):
        yield from judge.compare(ours.at(place), theirs.at(place), f"{path}[{place}]")
    if ours.most is None or ours.most > first:
        yield from judge.compare(ours.rest, theirs.rest, f"{path}[]")


def _fields(judge: _Judge, written: Schema, read: Schema, path: str) -> Iterator[Problem]:
    yield from object_problems(judge.compare, Problem, judge.takes_name, written, read, path)


_Check = Callable[[_Judge, Schema, Schema, str], Iterator[Problem]]


def _limits(check: Callable[[Schema, Schema], list[str]]) -> _Check:
    def of_node(_: _Judge, written: Schema, read: Schema, path: str) -> Iterator[Problem]:
        for reason in check(written, read):
            yield Problem(path, reason)

    return of_node


_NUMBER = (
    frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"}
    ),
    _limits(number_problems),
)
_CHECKS: Mapping[str, Sequence[tuple[frozenset[str], _Check]]] = {
    "string": [
        (
            frozenset({"minLength", "maxLength", "pattern", "format"}),
            _limits(string_problems),
        )
    ],
    "integer": [_NUMBER],
    "number": [_NUMBER],
    "array": [
        (frozenset({"minItems", "maxItems", "uniqueItems"}), _limits(array_problems)),
        (frozenset({"items", "prefixItems", "additionalItems"}), _items),
    ],
    "object": [
        (
            frozenset(
                {
                    "additionalProperties",
                    "maxProperties",
                    "minProperties",
                    "patternProperties",
                    "properties",
                    "propertyNames",
                    "required",
                }
            ),
            _fields,
        )
    ],
}
_HANDLED = frozenset({"type"}).union(
    *(keywords for checks in _CHECKS.values() for keywords, _ in checks)
)
