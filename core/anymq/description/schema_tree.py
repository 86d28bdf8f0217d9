"""JSON schemas as the judge of payloads reads them: references replaced, unions in one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from ..errors import ConfigurationError

Schema = Mapping[str, Any]

NEVER: Schema = {"not": {}}
"""The schema that no value fits."""

_ANNOTATIONS = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
    }
)
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


class SchemaTree:
    """Resolves the schemas of one document, whose references point into `root`."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def resolve(self, schema: Any) -> Schema:
        """Return `schema` without `$ref`, with a merged `allOf` and several types as `anyOf`.

        Raises `ConfigurationError` for what is no schema, and for a reference that leads nowhere.
        """
        found = self._replaced(schema, frozenset())
        types = found.get("type")
        if isinstance(types, list):
            rest = {key: value for key, value in found.items() if key != "type"}
            return {"anyOf": [{**rest, "type": each} for each in types]}
        if types is not None and types not in _TYPES:
            raise ConfigurationError(f"{str(types)[:40]!r} is not a type of JSON schema")
        return found

    def _replaced(self, schema: Any, seen: frozenset[str]) -> Schema:
        if schema is True:
            return {}
        if schema is False:
            return NEVER
        if not isinstance(schema, Mapping):
            raise ConfigurationError(f"{str(schema)[:40]!r} is not a JSON schema")
        parts: list[Schema] = []
        rest = dict(schema)
        if "$ref" in rest:
            reference = rest.pop("$ref")
            if reference in seen:
                raise ConfigurationError(f"the reference {reference!r} refers to itself")
            parts.append(self._replaced(self._at(reference), seen | {reference}))
        parts += [self._replaced(part, seen) for part in rest.pop("allOf", ())]
        merged: Schema = rest
        for part in reversed(parts):
            merged = _merged(part, merged)
        return merged

    def _at(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise ConfigurationError(f"the reference {reference!r} leads out of the document")
        node: Any = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or key not in node:
                raise ConfigurationError(f"the reference {reference!r} leads nowhere")
            node = node[key]
        return node


def constraints(schema: Schema) -> dict[str, Any]:
    """Return the keywords of `schema` that refuse values, without the annotations."""
    return {
        key: value
        for key, value in schema.items()
        if key not in _ANNOTATIONS and not key.startswith("x-")
    }


def union_of(schema: Schema) -> tuple[list[Any], Schema] | None:
    """Return the alternatives of `schema` and its other keywords; None without alternatives."""
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return list(schema[keyword]), {k: v for k, v in schema.items() if k != keyword}
    return None


def values_of(schema: Schema) -> list[Any] | None:
    """Return the only values that `schema` allows, if it lists them."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def described(schema: Schema) -> str:
    """Return a few words for `schema`, for people."""
    values, union = values_of(schema), union_of(schema)
    if values is not None:
        return " or ".join(repr(value) for value in values[:5]) + (" …" if values[5:] else "")
    if union is not None:
        names = dict.fromkeys(described(each) for each in union[0] if isinstance(each, Mapping))
        return " or ".join(names)
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = schema.get("type")
    if kind is None:
        return "any value" if not constraints(schema) else "a value"
    if kind == "object" and "title" in schema:
        return str(schema["title"])
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _merged(one: Schema, other: Schema) -> Schema:
    """Return one schema that says what both say; `allOf` of both if they limit the same thing."""
    if not constraints(other):
        return {**one, **other}
    if not constraints(one):
        return {**other, **{k: v for k, v in one.items() if k not in other}}
    merged = {**one, **other}
    for key in constraints(one).keys() & constraints(other).keys():
        if key == "properties" and not one[key].keys() & other[key].keys():
            merged[key] = {**one[key], **other[key]}
        elif key == "required":
            merged[key] = [*dict.fromkeys([*one[key], *other[key]])]
        elif one[key] != other[key]:
            return {"allOf": [one, other]}
    return merged
