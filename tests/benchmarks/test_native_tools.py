"""The rates of the brokers' own tools are parsed; output without a rate is an error."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from benchmarks.speed.contestants import BACKENDS
from benchmarks.speed.contestants.native import ToolFailed, kafka, natives, nats, rabbitmq, redis
from benchmarks.speed.contestants.native.tool import report_of

PRODUCER = """\
24577 records sent, 4914.4 records/sec (1.20 MB/sec), 30.9 ms avg latency, 71.0 ms max latency.
50000 records sent, 7387.706856 records/sec (1.80 MB/sec), 28.33 ms avg latency, 81.00 ms max.
25000 steady state records sent, 9871.308017 records/sec (2.41 MB/sec), 24.36 ms avg latency.
"""
CONSUMER = """\
start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, \
rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-11-21 17:10:41:050, 2026-11-21 17:10:44:350, 12.2070, 3.6991, 50000, 15151.5152, 2600, 700, \
17.4386, 71428.5714
"""
PERF_TEST = """\
id: test-1, sending rate avg: 9165 msg/s
id: test-1, receiving rate avg: 0 msg/s
"""
SECONDS = """\
id: test-1, time 1.000 s, sent: 3000 msg/s, confirmed: 2000 msg/s, nacked: 0 msg/s, median: 2969 µs
id: test-1, time 2.000 s, sent: 9000 msg/s, confirmed: 8000 msg/s, nacked: 0 msg/s, median: 2969 µs
id: test-1, time 3.000 s, sent: 9000 msg/s, confirmed: 9000 msg/s, nacked: 0 msg/s, median: 2969 µs
id: test-1, time 4.000 s, sent: 5000 msg/s, confirmed: 8500 msg/s, nacked: 0 msg/s, median: 2969 µs
"""
BENCHMARK = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms"
"XADD topic * data xxx","227272.73","1.913","0.704","1.895"
"""


def test_kafka_producer_rate_excludes_its_warm_up() -> None:
    assert kafka.sent(PRODUCER) == 9871.308017


def test_kafka_consumer_rate_excludes_the_time_to_join() -> None:
    assert kafka.fetched(f"WARNING: an option is deprecated, soon.\n{CONSUMER}") == 71428.5714


def test_perf_test_rate_is_the_median_of_its_seconds() -> None:
    assert rabbitmq.rate("confirmed", SECONDS + PERF_TEST) == 8500
    assert rabbitmq.rate("confirmed", PERF_TEST) == 9165
    assert rabbitmq.rate("received", SECONDS + PERF_TEST) == 0
    with pytest.raises(ToolFailed, match="printed no receiving rate"):
        rabbitmq.rate("received", SECONDS)


def test_redis_benchmark_rate_is_its_requests_per_second() -> None:
    assert redis.requests(BENCHMARK) == 227272.73


def test_nats_go_rate_is_parsed() -> None:
    assert nats.told("66635.4 messages/s\n") == 66635.4


@pytest.mark.parametrize("read", [kafka.sent, kafka.fetched, redis.requests, nats.told])
def test_output_without_a_rate_is_an_error(read: Callable[[str], float]) -> None:
    with pytest.raises(ToolFailed, match="printed no rate"):
        read("connection refused")


async def test_a_failed_tool_reports_its_output() -> None:
    with pytest.raises(ToolFailed, match="no such topic"):
        await report_of([sys.executable, "-c", "raise SystemExit('no such topic')"])


def test_each_server_has_a_tool() -> None:
    found = {backend: len(natives(backend)) for backend in BACKENDS}
    assert found == {"kafka": 1, "rabbitmq": 1, "nats": 1, "redis": 1, "sqlite": 0, "memory": 0}
