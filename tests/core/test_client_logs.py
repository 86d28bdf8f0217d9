"""Log lines of a client library in an outage: few, without tracebacks, except at DEBUG."""

from __future__ import annotations

import logging
import time

import pytest

from anymq.client_logs import REPEAT_SECONDS, limit_repeats
from anymq.logs import logger


def complain(log: logging.Logger, number: int) -> None:
    try:
        raise OSError(number)
    except OSError:
        log.error("no connection: %d", number, exc_info=True)


@pytest.fixture
def library(request: pytest.FixtureRequest) -> logging.Logger:
    child = logging.getLogger(f"some_client_{request.node.name}.conn")
    limit_repeats(child.name.partition(".")[0])
    return child


def test_a_repeated_line_is_logged_once_per_interval(
    library: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        complain(library, number)
    library.error("something else")
    assert [record.getMessage() for record in caplog.records] == [
        "no connection: 0",
        "something else",
    ]
    assert [record.exc_info for record in caplog.records] == [None, None]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + REPEAT_SECONDS)
    complain(library, 100)
    assert caplog.records[-1].getMessage() == "no connection: 100 (99 more)"


def test_at_debug_level_every_line_is_logged(
    library: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, library.name)
    for number in range(3):
        complain(library, number)
    assert len(caplog.records) == 3
    assert caplog.records[0].exc_info


def test_the_limit_of_repeats_installs_its_filter_once(library: logging.Logger) -> None:
    limit_repeats(library.name.partition(".")[0])
    assert len(library.filters) == 1


def test_a_repeated_outage_is_logged_rarely(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("anymq.test_outage")
    caplog.set_level(logging.INFO, "anymq.test_outage")
    for number in range(50):
        log.rarely(("orders", "g"), logging.WARNING, "away: %d", number)
        log.rarely(("payments", "g"), logging.WARNING, "away: %d", number)
    assert [record.getMessage() for record in caplog.records] == ["away: 0", "away: 0"]
