"""Single values under a JSON schema, for enumerations and the names of fields."""

from __future__ import annotations

import re
from typing import Any

from .bounds import number_problems, string_problems
from .schema_tree import SchemaTree, constraints, union_of, values_of

_HANDLED = frozenset({"type", "minLength", "maxLength", "pattern", "format"}) | frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)


def accepts(tree: SchemaTree, schema: Any, value: Any) -> bool:
    """Whether `value` surely fits `schema`; False where that cannot be told."""
    found = constraints(tree.resolve(schema))
    if not found:
        return True
    if "allOf" in found:
        return all(accepts(tree, part, value) for part in found["allOf"])
    if (values := values_of(found)) is not None:
        return any(_same(value, each) for each in values)
    if (union := union_of(found)) is not None:
        return accepts(tree, union[1], value) and any(
            accepts(tree, alternative, value) for alternative in union[0]
        )
    kind, wanted = _kind(value), found.get("type")
    if wanted is not None and kind != wanted and (kind, wanted) != ("integer", "number"):
        return False
    if not found.keys() <= _HANDLED:
        return False
    if kind == "string":
        pattern = found.get("pattern")
        size = len(value)
        single = {"minLength": size, "maxLength": size, "pattern": pattern}
        return not string_problems(single, found) and (pattern is None or _matches(pattern, value))
    if kind in ("integer", "number"):
        single = {"type": kind, "minimum": value, "maximum": value, "multipleOf": value or None}
        return not number_problems(single, found)
    return True


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: True is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False
