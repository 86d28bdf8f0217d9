"""Kafka's own performance tools."""

from __future__ import annotations

import csv
import re

from brokers import maven

from ...contestant import BenchTopic
from .. import kafka
from ..address import hosts
from ..durability import DURABILITY
from . import java
from .tool import Native, ToolFailed, report_of

_NAME = "kafka-tools-4.2.0"
_ARTIFACTS = {"org.apache.kafka:kafka-tools": "4.2.0", "org.slf4j:slf4j-simple": "1.7.36"}
_RATE = re.compile(r"^\d+ steady state records sent, ([\d.]+) records/sec", re.MULTILINE)
_COLUMN = "fetch.nMsg.sec"


class KafkaTools(Native):
    """One producer, one consumer, in Java."""

    backend = "kafka"
    durability = DURABILITY["kafka"]
    how = (
        "kafka-producer-perf-test, no headers, batches of up to 1 MB, second half of the messages; "
        "kafka-consumer-perf-test, automatic commits"
    )

    @classmethod
    def missing(cls) -> str | None:
        return java.missing()

    def install(self) -> None:
        maven.fetch(_NAME, _ARTIFACTS)

    async def prepare(self, topic: BenchTopic) -> None:
        await kafka.make_topic(topic)

    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float:
        argv = java.command(_NAME, "org.apache.kafka.tools.ProducerPerformance")
        argv += ["--topic", topic.name, "--num-records", str(count), "--record-size", str(size)]
        argv += ["--throughput", "-1", "--warmup-records", str(count // 2)]
        argv += ["--bootstrap-server", _servers(topic)]
        argv += ["--command-property", "acks=all", "enable.idempotence=true"]
        argv += [f"batch.size={kafka.BATCH_BYTES}"]
        return sent(await report_of(argv))

    async def consume(self, topic: BenchTopic, *, count: int) -> float:
        argv = java.command(_NAME, "org.apache.kafka.tools.ConsumerPerformance")
        argv += ["--topic", topic.name, "--num-records", str(count)]
        argv += ["--group", f"{topic.name}.{topic.group}", "--bootstrap-server", _servers(topic)]
        return fetched(await report_of(argv))


def sent(report: str) -> float:
    """Return the rate after the warm-up, from the last line of the producer."""
    found = _RATE.findall(report)
    if not found:
        raise ToolFailed(f"kafka-producer-perf-test printed no rate: {report[-300:]}")
    return float(found[-1])


def fetched(report: str) -> float:
    """Return the rate from the consumer's table, excluding the time to join the group."""
    lines = [line for line in report.splitlines() if line.count(",") > 5]
    for row in csv.DictReader(lines, skipinitialspace=True):
        if rate := row.get(_COLUMN):
            return float(rate)
    raise ToolFailed(f"kafka-consumer-perf-test printed no rate: {report[-300:]}")


def _servers(topic: BenchTopic) -> str:
    return ",".join(hosts(topic.url, kafka.PORT))
