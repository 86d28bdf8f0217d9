"""Values on the command line: every accepted form, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cyclopts import App
from hypothesis import given
from hypothesis import strategies as st

from anymq.cli.values import (
    SIZES,
    Duration,
    Rate,
    Size,
    StartAt,
    Time,
    duration_of,
    rate_of,
    since_of,
    size_of,
    start_of,
    time_of,
)

Parser = Callable[[str], object]
PARSERS: tuple[Parser, ...] = (duration_of, size_of, rate_of, time_of, start_of, since_of)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *{"5s": 5, "10m": 600, "2h": 7200, "7d": 604800, "1w": 604800, "1h30m": 5400}.items(),
        *{"250ms": 0.25, "1.5s": 1.5, "0s": 0}.items(),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_of(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *{"1GB": 10**9, "1gb": 10**9, "1GiB": 2**30, "500kB": 500_000}.items(),
        *{"1.5 MB": 1_500_000, "17": 17, "17B": 17, "2k": 2000, "3G": 3 * 10**9}.items(),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    ("text", "rate"), [("50/s", 50), ("50", 50), ("120/m", 2), ("3600/h", 1), ("0.5/s", 0.5)]
)
def test_rates(text: str, rate: float) -> None:
    assert rate_of(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["@2026-11-28T10:00Z", "2026-11-28T10:00Z", "@2026-11-28T10Z"])
def test_times_with_a_zone(text: str) -> None:
    assert time_of(text) == datetime(2026, 11, 28, 10, tzinfo=UTC)


def test_a_time_without_a_zone_is_local() -> None:
    assert time_of("@2026-11-28T10:00") == datetime(2026, 11, 28, 10).astimezone()
    assert time_of("@2026-11-28") == datetime(2026, 11, 28).astimezone()


def test_times_before_now() -> None:
    for text, ago in (("@-1h", 3600), ("-1h", 3600), ("@now", 0)):
        before = datetime.now(UTC)
        assert before <= time_of(text) + timedelta(seconds=ago) <= datetime.now(UTC)


def test_since_is_a_time_or_a_duration() -> None:
    for text, ago in (("1h", 3600), ("1h30m", 5400), ("@-1h", 3600), ("@now", 0)):
        before = datetime.now(UTC)
        assert before <= since_of(text) + timedelta(seconds=ago) <= datetime.now(UTC)
    assert since_of("2026-11-28T10:00Z") == datetime(2026, 11, 28, 10, tzinfo=UTC)


def test_starts() -> None:
    assert start_of("start") == "earliest"
    assert start_of("end") == "latest"
    assert start_of("0:17") == "0:17"
    assert start_of("@2026-11-28T10:00Z") == datetime(2026, 11, 28, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(duration_of, text) for text in ("", "5", "s", "5x", "-5s", "5 s", "1e3s", "9" * 15 + "d")]
    + [(size_of, text) for text in ("", "GB", "1XB", "-1GB", "1e3")]
    + [(rate_of, text) for text in ("", "0/s", "-1/s", "5/x", "/s")]
    + [(time_of, text) for text in ("", "@", "@-", "@-5", "@tomorrow", "@2026-13-01", "@1")]
    + [(since_of, text) for text in ("", "5", "-5", "yesterday")]
    + [(start_of, text) for text in ("", "@", "-5", "@x")],
)
def test_refused(parse: Parser, text: str) -> None:
    with pytest.raises(ValueError, match=r"write|century"):
        parse(text)


@given(st.integers(0, 10**6), st.sampled_from("smhdw"))
def test_every_whole_duration(amount: int, unit: str) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit] * amount
    if seconds > 36600 * 86400:
        with pytest.raises(ValueError, match="century"):
            duration_of(f"{amount}{unit}")
    else:
        assert duration_of(f"{amount}{unit}") == timedelta(seconds=seconds)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZES)))
def test_every_whole_size(amount: int, unit: str) -> None:
    assert size_of(f"{amount}{unit}") == amount * SIZES[unit]


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))
def test_every_time_in_utc(when: datetime) -> None:
    assert time_of(f"@{when.isoformat()}Z") == when.replace(tzinfo=UTC)


@given(st.text(max_size=30), st.sampled_from(PARSERS))
def test_any_text_parses_or_is_a_value_error(text: str, parse: Parser) -> None:
    with suppress(ValueError):
        parse(text)


def test_as_annotations() -> None:
    app = App()
    given = []

    @app.default
    def command(
        to: StartAt,
        /,
        *,
        keep: Duration | None = None,
        bytes: Size = 5,
        rate: Rate | None = None,
        since: Time | None = None,
    ) -> None:
        given.append((to, keep, bytes, rate, since))

    def run(*tokens: str) -> None:
        call, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        call(*bound.args, **bound.kwargs)

    run("start", "--keep", "7d", "--bytes=1kB", "--rate", "50/s", "--since", "@2026-11-28T10:00Z")
    run("@2026-11-28T10:00Z")
    when = datetime(2026, 11, 28, 10, tzinfo=UTC)
    assert given == [("earliest", timedelta(7), 1000, 50.0, when), (when, None, 5, None, None)]
    with pytest.raises(Exception, match="Invalid value for --keep: '5' is no duration"):
        run("start", "--keep", "5")
