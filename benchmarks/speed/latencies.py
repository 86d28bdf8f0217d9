"""HdrHistograms of latencies, encoded as text so that processes can send and add them."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from pydantic import BaseModel

LOWEST, HIGHEST, DIGITS = 1, 60_000_000, 3
"""In microseconds."""

ENOUGH = {50.0: 100, 90.0: 100, 99.0: 1000, 99.9: 10_000}
"""Fewest samples for which each percentile is reported."""


class Percentiles(BaseModel):
    """Percentiles in milliseconds, None if there were too few samples."""

    samples: int
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    highest: float


def encoded(nanoseconds: Iterable[int]) -> str:
    """Return the encoded histogram of these latencies."""
    histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for value in nanoseconds:
        histogram.record_value(min(HIGHEST, max(LOWEST, value // 1000)))
    text: bytes = histogram.encode()
    return text.decode()


def percentiles(texts: Iterable[str]) -> Percentiles:
    """Return the percentiles over all encoded histograms."""
    histogram = _sum(texts)
    samples: int = histogram.get_total_count()

    def at(percent: float) -> float | None:
        if samples < ENOUGH[percent]:
            return None
        return float(histogram.get_value_at_percentile(percent)) / 1000

    return Percentiles(
        samples=samples,
        p50=at(50.0),
        p90=at(90.0),
        p99=at(99.0),
        p999=at(99.9),
        highest=histogram.get_max_value() / 1000,
    )


def curve(texts: Iterable[str], nines: int = 3) -> list[tuple[float, float]]:
    """Return `(log10(100 / (100 - percentile)), milliseconds)` up to `nines` nines."""
    histogram = _sum(texts)
    points = [step / 20 for step in range(nines * 20 + 1)]
    return [
        (point, histogram.get_value_at_percentile(100 - 100 / 10**point) / 1000)
        for point in points
        if histogram.get_total_count() >= 10 * 10**point
    ]


def _sum(texts: Iterable[str]) -> HdrHistogram:
    histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for text in texts:
        histogram.decode_and_add(text)
    return histogram
