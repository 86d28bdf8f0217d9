"""Every command on every backend, in the order in which an operator might type them."""

from __future__ import annotations

import pytest

from anymq.cli.application import COMMANDS
from tests.cli.support import Command

ORDER = '{"number": "o-1"}'
TABLE: dict[str, list[list[str]]] = {
    "config": [["config", "show"]],
    "topic": [["topic", "create", "TOPIC"], ["topic", "ls", "TOPIC"], ["topic", "show", "TOPIC"]],
    "pub": [["pub", "TOPIC", ORDER, "-k", "o-1", "--id", "placed-1"]],
    "sub": [
        ["sub", "TOPIC", "--from", "start", "--until", "end"],
        ["sub", "TOPIC", "-g", "billing", "-n", "1"],
    ],
    "group": [["group", "ls", "TOPIC"], ["group", "show", "TOPIC", "billing"]],
    "check": [
        ["check", "connection"],
        ["check", "lag", "TOPIC", "billing", "--warn", "10", "--crit", "20"],
        ["check", "dlq", "TOPIC", "billing", "--warn", "1", "--crit", "2"],
    ],
    "dlq": [["dlq", "ls", "TOPIC", "billing"], ["dlq", "redrive", "TOPIC", "billing", "--yes"]],
    "trace": [["trace", "placed-1", "--topic", "TOPIC"]],
}
WITHOUT_A_BROKER = {"new", "docs", "context"}
"""Commands that connect to nothing."""
ELSEWHERE = {"run", "demo", "doctor"}
"""Commands that run on every backend in a file of their own, because they take long."""


def test_the_table_has_every_command() -> None:
    assert set(TABLE) | WITHOUT_A_BROKER | ELSEWHERE == set(COMMANDS)


@pytest.mark.timeout(600)
def test_every_command(anymq: Command, url: str, topic: str) -> None:
    for lines in TABLE.values():
        for line in lines:
            words = [topic if word == "TOPIC" else word for word in line]
            words += ["--url", url, "--json"]
            assert anymq(*words).envelopes, words
