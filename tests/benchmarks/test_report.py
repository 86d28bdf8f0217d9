"""Goals and reports: figures come from measurements, and omissions are listed."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.speed.accounting import Account
from benchmarks.speed.formatting import count, deviation
from benchmarks.speed.goals import GOALS, Goal, faults, verdicts
from benchmarks.speed.history import append
from benchmarks.speed.html import page
from benchmarks.speed.latencies import encoded, percentiles
from benchmarks.speed.plots import overview
from benchmarks.speed.results import (
    Backend,
    Cell,
    LeftOut,
    Machine,
    Microbenchmarks,
    Report,
    Sample,
    ratio,
)
from benchmarks.speed.terminal import print_goals, print_report

SERVERS = ("kafka", "rabbitmq", "nats", "redis")


def sample(round: int, rate: float, *, lost: int = 0, latency: str | None = None) -> Sample:
    account = Account(messages=1000, lost=lost, duplicates=0, reorders=0)
    void = f"lost {lost} of 1000" if lost else ""
    return Sample(
        round=round,
        rate=rate,
        messages=1000,
        account=account,
        cpu=10.0,
        void=void,
        latency=latency,
        confirm=latency,
        delay=latency,
    )


def cell(backend: str, workload: str, contestant: str, *rates: float, **more: Any) -> Cell:
    latency = more.pop("latency", None)
    return Cell(
        backend=backend,
        workload=workload,
        contestant=contestant,
        durability="on disk & <synced>",
        how="well",
        samples=[sample(number, rate, latency=latency) for number, rate in enumerate(rates)],
        **more,
    )


def report(*cells: Cell, chosen: tuple[str, ...] = ("redis",), **microbenchmarks: Any) -> Report:
    return Report(
        started="2026-11-21T12:00:00+00:00",
        seconds=61.0,
        command="python -m benchmarks",
        mode="full",
        chosen=list(chosen),
        rounds=3,
        anymq="0.1.0",
        commit="abc",
        machine=Machine(
            system="Linux",
            processor="cpu",
            cores=2,
            memory=1 << 30,
            python="3.11",
            loop="uvloop",
            load=0.5,
            packages={"redis": "8"},
        ),
        backends=[
            Backend(
                name=name,
                version="1",
                where=f"{name}://***@host",
                durability="on disk",
                capabilities={"persistent": ("native", ""), "ordered": ("emulated", "by `x`")},
            )
            for name in chosen
        ],
        cells=list(cells),
        microbenchmarks=Microbenchmarks(
            values={name.replace("_", " "): value for name, value in microbenchmarks.items()}
        ),
        left_out=[LeftOut(what="redis: typed", why="<no time>")],
    )


def verdict(found: Report, what: str, backend: str) -> tuple[float | None, bool]:
    (one,) = (
        one for one in verdicts(found) if (one.goal.name, one.goal.backend) == (what, backend)
    )
    return one.figure, one.met


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    ours = cell("redis", "publish", "anymq", 30.0, 20.0, 90.0)
    raw = cell("redis", "publish", "raw", 10.0, 10.0, 10.0)
    assert ratio(ours, raw) == 3.0
    assert ratio(ours, None) is None
    assert verdict(report(ours, raw), "publish, against the raw client as usual", "redis") == (
        3.0,
        True,
    )


def test_void_rounds_do_not_count() -> None:
    ours = cell("redis", "publish", "anymq", 30.0, 20.0)
    ours.samples.append(sample(2, 1e9, lost=1))
    assert ours.rate == 25.0
    raw = cell("redis", "publish", "raw", 10.0, 10.0, 1.0)
    assert ratio(ours, raw) == 2.5


def test_losses_of_anymq_are_faults_whatever_its_figures() -> None:
    losing = cell("redis", "consume", "anymq", 100.0)
    losing.samples.append(sample(1, 900.0, lost=3))
    peer = cell("redis", "consume", "raw")
    peer.failures.append("no connection")
    assert faults(report(losing, peer)) == ["redis: consume: anymq: lost 3 of 1000"]


def test_an_unmeasured_goal_passes_only_if_it_is_optional() -> None:
    found = verdicts(report())
    assert found
    for one in found:
        assert one.figure is None
        assert one.text == "not measured"
        assert not one.met
        assert one.passed is one.goal.optional
    assert {one.goal.name for one in found if one.goal.optional} == {
        "publish, against the native tool",
        "consume, against the native tool",
    }


def test_a_quick_run_is_judged_by_its_measurements() -> None:
    slow = cell("redis", "publish", "anymq", 10.0), cell("redis", "publish", "raw", 10.0)
    quick = report(*slow).model_copy(update={"mode": "quick"})
    found = {one.goal.name: one for one in verdicts(quick)}
    short = found["publish, against the raw client as usual"]
    assert (short.text, short.passed) == ("missed", False)
    later = found["resident memory gained over a long backlog"]
    assert (later.text, later.passed) == ("full run only", True)
    failed = found["import anymq"]
    assert (failed.text, failed.passed) == ("not measured", True)


def test_only_the_backends_of_the_run_are_judged() -> None:
    assert {one.goal.backend for one in verdicts(report(chosen=("nats",)))} == {"", "nats"}
    everything = verdicts(report(chosen=(*SERVERS, "sqlite", "memory")))
    assert len(everything) == len(GOALS)


def test_latency_goals_compare_percentiles_at_half_the_load() -> None:
    ours = encoded([2_000_000] * 2000)
    theirs = encoded([1_000_000] * 2000)
    found = report(
        cell("redis", "latency", "anymq", 100.0, load=0.5, latency=ours),
        cell("redis", "latency", "raw", 100.0, load=0.5, latency=theirs),
    )
    figure, met = verdict(found, "end to end at 50 % load, p50, against the raw client", "redis")
    assert figure == pytest.approx(2.0, rel=0.01)
    assert not met


def test_percentiles_need_enough_samples() -> None:
    few = percentiles([encoded([1_000_000] * 500)])
    assert few.p50 == pytest.approx(1.0, rel=0.01)
    assert few.p99 is None
    assert few.p999 is None
    both = percentiles([encoded([1_000_000] * 9000), encoded([5_000_000] * 1000)])
    assert both.p999 == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize(("messages", "expected"), [(1_000_000, 8.0), (1000, None)])
def test_memory_growth_needs_a_long_backlog(messages: int, expected: float | None) -> None:
    long = cell("redis", "backlog", "anymq", 1000.0)
    long.samples[0].messages = messages
    long.samples[0].rss_growth = 8 * 1024 * 1024
    figure, met = verdict(report(long), "resident memory gained over a long backlog", "redis")
    assert figure == expected
    assert met is (expected is not None)


def test_a_tool_without_an_account_is_compared_by_its_rate() -> None:
    ours = cell("redis", "publish-many", "anymq", 60.0)
    tool = cell("redis", "publish-many", "native")
    tool.samples = [Sample(round=0, rate=100.0, messages=1000)]
    found = report(ours, tool)
    assert verdict(found, "publish, against the native tool", "redis") == (0.6, True)
    assert "native" in page(found)


def test_a_goal_may_be_a_ceiling() -> None:
    fast, slow = report(import_anymq=149.0), report(import_anymq=151.0)
    assert verdict(fast, "import anymq", "") == (149.0, True)
    assert verdict(slow, "import anymq", "") == (151.0, False)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect", "line", "polyline", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full() -> Report:
    latency = encoded(range(1_000_000, 21_000_000, 10_000))
    return report(
        cell("redis", "publish", "anymq", 30.0, 20.0),
        cell("redis", "publish", "raw", 10.0, 10.0),
        cell("redis", "consume", "anymq", 12345.0, 23456.0),
        cell("redis", "consume", "faststream", 1000.0, 1000.0),
        cell("redis", "latency", "anymq", 100.0, load=0.5, latency=latency),
        chosen=("redis", "nats"),
    )


def test_the_page_is_well_formed_and_self_contained() -> None:
    text = page(full())
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    assert elements.links == []
    assert "url(" not in text
    assert "&lt;no time&gt;" in text
    assert "<no time>" not in text
    for title in ("Summary", "Which broker for me?", "Goals", "Method", "Machine and caveats"):
        assert f"<h2>{title}</h2>" in text
    assert "On redis anymq publishes 25 messages/s (2.50 x the raw client)" in text
    assert "on disk &amp; &lt;synced&gt;" in text


def test_the_overview_shows_the_measured_cells() -> None:
    drawing = overview(full())
    assert drawing.startswith("<svg")
    assert set(re.findall(r"font-weight='600'>([^<]+)<", drawing)) == {
        "redis: publish, messages/s",
        "redis: consume, messages/s",
    }


def test_a_report_is_read_again_as_it_was_written() -> None:
    assert Report.model_validate_json(full().model_dump_json()) == full()


def test_the_history_grows_by_one_line_per_run(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "history.jsonl"
    append(full(), path)
    append(full(), path)
    one, other = map(json.loads, path.read_text().splitlines())
    assert one == other
    assert one["rates"]["redis/publish/anymq"] == 25


def test_the_terminal_shows_rates_goals_and_omissions() -> None:
    console = Console(file=io.StringIO(), width=160)
    print_report(full(), console)
    print_goals(verdicts(full()), console)
    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    for expected in ("17,900", "-20/+20 %", "not measured: redis: typed", "at least 2 x"):
        assert expected in text


def test_the_command_shows_an_earlier_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "old.json"
    source.write_text(full().model_dump_json())
    output = tmp_path / "out"
    arguments = ["--from", str(source), "--output", str(output), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "python -m benchmarks"
    assert {path.name for path in output.iterdir()} == {
        "report.html",
        "report.json",
        "overview.svg",
    }
    assert main([*arguments, "--goals"]) == 1


def test_goals_are_unique() -> None:
    names = [(goal.backend, goal.name) for goal in GOALS]
    assert len(set(names)) == len(names)
    assert all(isinstance(goal, Goal) for goal in GOALS)


def test_figures_are_rounded_to_significant_digits() -> None:
    assert [count(value) for value in (None, 0.5, 12.34, 1234.5, 123456.7)] == [
        "-",
        "0.5",
        "12.3",
        "1,230",
        "123,000",
    ]
    assert deviation(100.0, (90.0, 105.0)) == "-10/+5 %"
