"""A pytest plugin: readable assertions in the suite, and the backend by test table at the end."""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite(
    "anymq.testing.suite", "anymq.testing.tools", "anymq.testing.store_suite"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the suite's marker."""
    config.addinivalue_line(
        "markers", "anymq_needs(capability): a test of a capability that a backend may refuse"
    )


SIGNS = {"passed": "✓", "failed": "✗", "skipped": "s", "error": "E"}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Store the backend of a conformance test in its report, which pytest-xdist transmits."""
    result = yield
    harness = getattr(getattr(item, "cls", None), "harness", None)
    if harness is not None:
        result.get_result().user_properties.append(("anymq-backend", harness.name))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table if conformance tests ran."""
    table: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            backend = dict(getattr(report, "user_properties", [])).get("anymq-backend")
            if backend is not None:
                test = _name(report.nodeid)
                row = table.setdefault(test, {})
                if row.get(backend) not in ("failed", "error"):
                    row[backend] = outcome
    if table:
        _print(terminalreporter, table)


def _name(nodeid: str) -> str:
    # pytest-xdist appends the group that a test was scheduled with.
    return nodeid.rpartition("::")[2].removeprefix("test_").partition("@")[0]


def _print(terminalreporter: Any, table: dict[str, dict[str, str]]) -> None:
    backends = sorted({backend for row in table.values() for backend in row})
    width = max(map(len, table))
    terminalreporter.section("conformance: backend by test")
    terminalreporter.write_line(" " * width + "  " + "  ".join(backends))
    for test in sorted(table):
        cells = (
            SIGNS[table[test][backend]] if backend in table[test] else "·" for backend in backends
        )
        line = "  ".join(f"{cell:^{len(name)}}" for cell, name in zip(cells, backends, strict=True))
        terminalreporter.write_line(f"{test:<{width}}  {line}")
    for backend in backends:
        counts = [row.get(backend) for row in table.values()]
        terminalreporter.write_line(
            f"{backend}: {counts.count('passed')} passed, "
            f"{counts.count('failed') + counts.count('error')} failed, "
            f"{counts.count('skipped')} skipped"
        )
