"""The differences between two schemas of a payload, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .fields import below
from .schema_tree import Schema, SchemaTree, constraints, described, union_of

_SHOWN_ELSEWHERE = frozenset(
    {"additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum", "format"}
    | {"items", "oneOf", "prefixItems", "properties", "required", "type"}
)
Facts = Mapping[str, Mapping[str, str]]


def changes(old: Any, new: Any, *, old_in: Schema, new_in: Schema) -> list[tuple[str, str]]:
    """Return where `new` differs from `old`, as JSON path and text, in the order of the paths."""
    before, after = _facts(old, old_in), _facts(new, new_in)
    return [
        (path, text)
        for path in sorted(before.keys() | after.keys())
        if (text := _difference(before.get(path), after.get(path)))
    ]


def _difference(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> str:
    if old is None or new is None:
        found = old or new or {}
        kind = found.get("type", "any value")
        return f"{'added' if old is None else 'removed'} ({found.get('presence', '')}{kind})"
    keys = [key for key in (*old, *(key for key in new if key not in old))]
    parts: list[str] = []
    for key in keys:
        was, now = old.get(key, "none").strip(), new.get(key, "none").strip()
        if was != now:
            parts.append(f"{key} {was or 'required'} → {now or 'required'}")
    return "; ".join(parts)


def _facts(schema: Any, root: Schema) -> Facts:
    found: dict[str, Mapping[str, str]] = {}
    for path, facts in _walk(SchemaTree(root), schema, "$", "", ()):
        found.setdefault(path, facts)
    return found


def _walk(
    tree: SchemaTree, schema: Any, path: str, presence: str, above: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield what is said about each place of a payload; not about a type inside itself."""
    text = json.dumps(schema, sort_keys=True, default=str)
    if text in above:
        return
    node, above = tree.resolve(schema), (*above, text)
    yield path, _said(tree, node, presence)
    required = node.get("required", ())
    for name, each in node.get("properties", {}).items():
        word = "" if name in required else "optional "
        yield from _walk(tree, each, below(path, name), word, above)
    if isinstance(others := node.get("additionalProperties"), Mapping):
        yield from _walk(tree, others, f"{path}.*", "", above)
    items = node.get("items")
    if isinstance(items, list):
        for place, each in enumerate(items):
            yield from _walk(tree, each, f"{path}[{place}]", "", above)
    elif isinstance(items, Mapping):
        yield from _walk(tree, items, f"{path}[]", "", above)
    for each in (union_of(node) or ([], {}))[0]:
        for at, facts in _walk(tree, each, path, "", above):
            if at != path:
                yield at, facts


def _said(tree: SchemaTree, node: Schema, presence: str) -> Mapping[str, str]:
    union = union_of(node)
    names = [described(tree.resolve(each)) for each in union[0]] if union else [described(node)]
    facts = {"presence": presence, "type": " or ".join(sorted(dict.fromkeys(names)))}
    if "default" in node:
        facts["default"] = json.dumps(node["default"], default=str)
    for key, value in constraints(node).items():
        if key not in _SHOWN_ELSEWHERE or isinstance(value, bool):
            facts[key] = json.dumps(value, default=str)
    return facts
