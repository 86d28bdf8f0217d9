"""The import graph of a package, read from its source text, and the cycles in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Graph = dict[str, set[str]]


def import_graph(package: Path) -> Graph:
    """Return for each module of `package` the modules of the same package that it imports.

    Imports inside functions and under `TYPE_CHECKING` count as well.
    """
    modules = {_name(package, path): path for path in package.rglob("*.py")}
    return {
        module: {
            target
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for target in _targets(node, module, path, modules)
            if target != module
        }
        for module, path in modules.items()
    }


def cycles(graph: Graph) -> list[list[str]]:
    """Return groups of modules that import each other, directly or through others, sorted."""
    reached = {module: _reachable(module, graph) for module in graph}
    circles = {
        tuple(sorted({module, *(other for other in reached[module] if module in reached[other])}))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, circles))


def one_circle(graph: Graph) -> str:
    """Return one chain of imports that leads back to its beginning; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def _name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node: ast.AST, module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, module, path)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            if full in modules or base in modules:
                yield full if full in modules else base


def _base(node: ast.ImportFrom, module: str, path: Path) -> str:
    """Return the absolute name of the module that `node` imports from."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _reachable(module: str, graph: Graph) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[module])
    while ahead:
        if (current := ahead.pop()) not in found:
            found.add(current)
            ahead += graph[current]
    return found
