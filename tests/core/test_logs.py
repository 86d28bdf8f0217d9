"""Log lines: text from publishers can neither forge a line nor fill the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from anymq import logs
from anymq.logs import Log, logger
from anymq.testing.tools import until

HOSTILE = "a\nERROR anymq forged\x1b[2J\r\u2028b\u202ec\ud800"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    with caplog.at_level(logging.INFO, logger="anymq.test"):
        yield logger("anymq.test")


def test_text_of_publishers_stays_in_its_line(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.warning("%s and %r and %s, %d", HOSTILE, HOSTILE, ValueError(HOSTILE), 3)
    line = caplog.records[-1].getMessage()
    assert line.isprintable()
    assert line.count("forged") == 3
    assert line.endswith(", 3")


def test_a_line_is_limited_in_length(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.warning("%s", "x" * 1_000_000)
    assert len(caplog.records[-1].getMessage()) < 2000


def test_a_line_names_its_source_location(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    log.warning("here")
    log.seldom("kind", logging.WARNING, "here")
    assert {record.filename for record in caplog.records} == {Path(__file__).name}


@pytest.mark.asyncio
async def test_repeated_lines_are_counted(
    log: Log, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("anymq.logs.time.monotonic", lambda: now)
    for number in range(200_000):
        log.seldom("kind", logging.WARNING, "bad: %s", f"{HOSTILE} {number}")
    log.seldom("another kind", logging.WARNING, "bad, too")
    assert len(caplog.records) == logs.BURST + 1
    now += logs.SUMMARY_SECONDS
    log.seldom("kind", logging.WARNING, "bad: %s", "later")
    lines = [record.getMessage() for record in caplog.records[logs.BURST + 1 :]]
    assert len(lines) == 2
    assert lines[0].startswith(f"{200_000 - logs.BURST} more in 10 s, the latest: bad: a")
    assert lines[0].endswith("199999")
    assert lines[1] == "bad: later"


@pytest.mark.asyncio
async def test_the_last_repetitions_are_counted_as_well(
    log: Log, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SUMMARY_SECONDS", 1.0)
    for _ in range(logs.BURST + 7):
        log.seldom("kind", logging.WARNING, "bad")
    await until(lambda: len(caplog.records) > logs.BURST)
    assert caplog.records[-1].getMessage() == "7 more in 1 s, the latest: bad"


def test_the_number_of_counted_kinds_is_bounded(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3 * logs.MAX_KINDS):
        log.seldom(number, logging.WARNING, "bad")
    assert len(log._kinds) <= logs.MAX_KINDS


def test_all_of_anymq_logs_through_its_own_logger() -> None:
    root = Path(logs.__file__).parent
    adapters = Path(__file__).parents[2] / "adapters"
    for path in [*root.rglob("*.py"), *adapters.rglob("*.py")]:
        if path.name != "logs.py" and not {"testing", "cli"} & set(path.parts):
            assert not re.search(
                r"getLogger\(|logging\.(debug|info|warning|error)\(", path.read_text()
            ), path
