"""The public names and their signatures, as text: `python -m tests.packaging.surface` writes it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("surface.txt")
MODULES = (
    "anymq",
    "anymq.health",
    "anymq.middleware",
    "anymq.settings",
    "anymq.testing",
    "anymq.driver",
)


def surface() -> str:
    """Return one line for each public name of `MODULES`, and each public member of a class."""
    lines = (line for module in MODULES for line in _module(importlib.import_module(module)))
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _module(module: Any) -> Iterator[str]:
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    for name in sorted(names):
        value = getattr(module, name)
        full = f"{module.__name__}.{name}"
        yield f"{full}{_signature(value)}"
        if inspect.isclass(value):
            yield from _members(full, value)


def _members(full: str, owner: type) -> Iterator[str]:
    for name in sorted(dir(owner)):
        # What a class has of its base classes outside of anymq is theirs.
        base = next(base for base in owner.__mro__ if name in vars(base) or base is object)
        if name.startswith("_") or not base.__module__.startswith("anymq"):
            continue
        raw = inspect.getattr_static(owner, name)
        if isinstance(raw, (staticmethod, classmethod)):
            raw = raw.__func__
        if inspect.isfunction(raw):
            kind = "async " if inspect.iscoroutinefunction(raw) else ""
            yield f"{full}.{name}{_signature(raw)} {kind}".rstrip()
        else:
            yield f"{full}.{name}"


def _signature(value: Any) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
    except (TypeError, ValueError):
        return ""


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
