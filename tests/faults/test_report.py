"""What was found out can be written, read, and put together."""

from __future__ import annotations

import json

from benchmarks.chaos.judge import judge
from benchmarks.chaos.report import Outcome, from_json, markdown
from benchmarks.chaos.run import Size

SIZE = Size(messages=3, outage=1.0, pauses=(1.0,), stall=1.0, backlog=3, down=1.0)


def test_a_report_is_made_of_what_was_printed() -> None:
    outcome = Outcome("redis", "8.0.2", "outage", SIZE, 7.5, judge([]), ["it was lost"])
    printed = json.dumps([outcome.as_json()]).encode()
    assert from_json(printed) == [outcome]
    report = markdown(from_json(printed))
    assert "| redis | outage |" in report
    assert "- redis outage: it was lost" in report
    assert f"\n{outcome.command()}\n" in report
