"""The layout of the adapters: their imports, their rooms, and their use of private parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).parents[2] / "adapters"
NAMES = ("kafka", "rabbitmq", "nats", "redis", "sqlite", "memory")

ROOMS = {
    "__init__",
    "admin",
    "broadcast",
    "capabilities",
    "checks",
    "connection",
    "delays",
    "driver",
    "errors",
    "messages",
    "options",
    "ordered",
    "positions",
    "publisher",
    "source",
    "store",
    "topology",
}
"""The files of an adapter. Each has those that it needs, and no others."""
NATIVE = {
    "kafka": "group",
    "rabbitmq": "groups",
    "nats": "jetstream",
    "redis": "scripts",
    "sqlite": "file",
    "memory": "space",
}
"""By adapter the one sub-package for the parts that no other backend has."""
MOST_NAMES = 46


def files(adapter: str) -> Iterator[Path]:
    yield from sorted((ADAPTERS / f"anymq_{adapter}").rglob("*.py"))


@pytest.mark.parametrize("adapter", NAMES)
def test_an_adapter_imports_the_driver_interface_alone(adapter: str) -> None:
    found = {
        (path.name, name)
        for path in files(adapter)
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.partition(".")[0] == "anymq"
    }
    assert {(file, name) for file, name in found if name != "anymq.driver"} == set()


@pytest.mark.parametrize("adapter", NAMES)
def test_an_adapter_has_the_same_rooms_as_the_others(adapter: str) -> None:
    folder = ADAPTERS / f"anymq_{adapter}"
    rooms = {path.stem for path in folder.glob("*.py")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert rooms <= ROOMS
    assert packages <= {"client", NATIVE[adapter]}


@pytest.mark.parametrize("adapter", NAMES)
def test_private_parts_are_touched_in_client_alone(adapter: str) -> None:
    outside = [path for path in files(adapter) if path.parent.name != "client"]
    found = {(path.name, name) for path in outside for name in _private_parts(path)}
    assert found == set()


def test_the_adapters_share_their_file_names() -> None:
    assert len({path.name for adapter in NAMES for path in files(adapter)}) <= MOST_NAMES


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def _private_parts(path: Path) -> Iterator[str]:
    """Yield each private name of another object, or of a client library's module, in a file."""
    tree = ast.parse(path.read_text())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if _is_of_self(node)}
    own |= {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for attribute in attributes:
        if _is_private(attribute.attr) and attribute.attr not in own:
            yield attribute.attr
    for node in ast.walk(tree):
        yield from (name for name in _imported(node) if any(map(_is_private, name.split("."))))


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
