"""What holds for every test: hypothesis' settings, and which backends this run cannot test."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import hypothesis
import pytest

pytest_plugins = ["anymq.testing.plugin"]

# Set by `tests.run`: a JSON object of the servers that could not be started, each with the reason.
UNAVAILABLE_VARIABLE = "ANYMQ_TEST_UNAVAILABLE"

LONG = pytest.StashKey[int]()

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("anymq", deadline=None, print_blob=True)
hypothesis.settings.load_profile("anymq")


def unavailable() -> dict[str, str]:
    reasons: dict[str, str] = json.loads(os.environ.get(UNAVAILABLE_VARIABLE, "{}"))
    return reasons


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, reason in unavailable().items():
        for item in items:
            if item.get_closest_marker(name):
                summary = reason.partition("\n")[0]
                item.add_marker(pytest.mark.skip(reason=f"no {name} server: {summary}"))


@pytest.fixture(autouse=True)
def every_kafka_connection_is_closed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """aiokafka says of a forgotten connection only that it was collected, some tests later."""
    if request.node.get_closest_marker("kafka") is None:
        yield
        return
    from aiokafka.conn import AIOKafkaConnection  # type: ignore[import-untyped]

    made: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
    connect = AIOKafkaConnection.connect

    async def noted(self: Any) -> Any:
        made[self] = "".join(traceback.format_stack(limit=12))
        return await connect(self)

    monkeypatch.setattr(AIOKafkaConnection, "connect", noted)
    yield
    left = [stack for connection, stack in made.items() if connection.connected()]
    assert not left, f"{len(left)} connections are open; one was made here:\n{left[0]}"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LONG] = 0


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the long tests that a marker expression left out."""
    if all(item.get_closest_marker("long") for item in items):
        items[0].config.stash[LONG] += len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] = getattr(session.config, "workeroutput", {})
    output["long"] = session.config.stash[LONG]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the count of a worker of pytest-xdist; all workers collect the same tests."""
    node.config.stash[LONG] = getattr(node, "workeroutput", {}).get("long", 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if count := config.stash[LONG]:
        terminalreporter.line(f"{count} long tests were not run: `make test-long` runs them")
    if reasons := unavailable():
        terminalreporter.section("backends NOT tested", red=True)
        for name, reason in reasons.items():
            terminalreporter.line(f"{name}: {reason}")
