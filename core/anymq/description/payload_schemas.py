"""JSON schemas of payload types, in the dialect of AsyncAPI 3.0 (JSON Schema draft 07)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal, cast

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

Mode = Literal["validation", "serialization"]
"""What a consumer accepts, or what a publisher writes."""

_LIMITS = {
    "multiple_of": "multipleOf",
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
REF = "#/components/schemas/{model}"


class _Generator(GenerateJsonSchema):
    """Says more than pydantic does about text that not every reader takes.

    What has no JSON schema is described as any value.
    """

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Describe numbers as well in what is written, where the limits stand, and the digits."""
        digits, places = schema.get("max_digits"), schema.get("decimal_places")
        limited = digits is not None or places is not None
        number: JsonSchemaValue = {"type": "number"}
        for key, keyword in _LIMITS.items():
            if (limit := schema.get(key)) is not None:
                number[keyword] = float(cast("Decimal", limit))
        kind = f"decimal({digits or '-'},{'-' if places is None else places})"
        if limited:
            number["format"] = kind
        return {"anyOf": [number, {"type": "string", "format": kind if limited else "decimal"}]}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Tell times with a time zone from those without one, if only one of both is taken."""
        found, zone = super().datetime_schema(schema), schema.get("tz_constraint")
        if found.get("format") != "date-time" or zone is None:
            return found
        if zone == "naive":
            return {**found, "format": "date-time-local"}
        return {**found, "pattern": r"([Zz]|[+-]\d\d:?\d\d)$"}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Say that keys are numbers or the like: JSON writes them as text."""
        found = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        kind = keys.get("type", "number" if "anyOf" in keys else "string")
        if kind != "string" and "propertyNames" not in found:
            found["propertyNames"] = {"type": "string", "format": kind}
        return found

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {"$comment": f"no JSON schema: {error_info}"}

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Say nothing: the schema of a default or of a choice left out is still right."""


def payload_schemas(
    types: Iterable[tuple[Hashable, Mode, Any]],
) -> tuple[dict[Hashable, Any], dict[str, Any]]:
    """Return the schema of each type by its key, and the schemas that they refer to by name."""
    inputs: list[tuple[_Key, Mode, TypeAdapter[Any]]] = [
        (_Key(key), mode, TypeAdapter[Any](bytes if kind is memoryview else kind))
        for key, mode, kind in types
    ]
    if not inputs:
        return {}, {}
    found, rest = TypeAdapter.json_schemas(
        inputs, by_alias=True, ref_template=REF, schema_generator=_Generator
    )
    named: Mapping[str, Any] = rest.get("$defs", {})
    return (
        {key.value: _draft07(schema) for (key, _), schema in found.items()},
        {name: _draft07(named[name]) for name in sorted(named)},
    )


def schema_of(kind: Any, mode: Mode = "validation") -> dict[str, Any]:
    """Return the schema of one type, with those it refers to in its `$defs`."""
    found: dict[str, Any] = _draft07(
        TypeAdapter[Any](kind).json_schema(by_alias=True, mode=mode, schema_generator=_Generator)
    )
    return found


class _Key:
    """Makes any hashable a key for pydantic, which sorts some keys."""

    __slots__ = ("value",)

    def __init__(self, value: Hashable) -> None:
        self.value = value


def _draft07(node: Any) -> Any:
    """Return the schema `node` as draft 07 writes it."""
    if isinstance(node, list):
        return [_draft07(each) for each in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("default", "examples", "enum", "const"):
            found[key] = value
        elif key in ("properties", "patternProperties", "$defs"):
            found[key] = {name: _draft07(each) for name, each in value.items()}
        elif key == "prefixItems":
            found["items"] = _draft07(value)
        elif key == "items" and "prefixItems" in node:
            found["additionalItems"] = _draft07(value)
        elif key != "discriminator":  # the values of the alternatives say it
            found[key] = _draft07(value)
    if "$ref" in found and len(found) > 1:
        # Draft 07 ignores what stands beside a reference.
        reference = found.pop("$ref")
        found = {"allOf": [{"$ref": reference}], **found}
    return found
