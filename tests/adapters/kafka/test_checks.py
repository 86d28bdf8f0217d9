"""Diagnosis of Kafka: settings of a cluster that lose messages, and clocks that differ."""

from __future__ import annotations

import pytest

from anymq_kafka import KafkaOptions, checks
from anymq_kafka.checks import replication
from brokers import server
from tests.adapters.diagnosing import diagnosis, set_clock

SAFE = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "unclean.leader.election.enable": "false",
    "log.retention.hours": "168",
    "offsets.retention.minutes": "10080",
}


def found(brokers: int, options: KafkaOptions | None = None, **changed: str) -> dict[str, str]:
    """Return the outcomes that are not ok, by check, in a cluster with changed settings."""
    settings = SAFE | {name.replace("_", "."): value for name, value in changed.items()}
    made = replication(brokers, settings, options or KafkaOptions())
    assert all(check.fix for check in made if check.outcome != "ok")
    return {check.name: check.outcome for check in made if check.outcome != "ok"}


def test_a_cluster_that_loses_nothing() -> None:
    assert found(3) == {}


def test_one_copy_in_a_cluster() -> None:
    assert found(3, default_replication_factor="1") == {"replication": "failed"}
    assert found(3, KafkaOptions(replication=1)) == {"replication": "failed"}
    assert found(3, KafkaOptions(replication=3), default_replication_factor="1") == {}
    assert found(1, default_replication_factor="1", min_insync_replicas="1") == {}


def test_confirmations_of_too_few_or_of_all_copies() -> None:
    assert found(3, min_insync_replicas="1") == {"min.insync.replicas": "failed"}
    assert found(3, min_insync_replicas="3") == {"min.insync.replicas": "warning"}


def test_leaders_without_the_newest_messages() -> None:
    changed = {"unclean.leader.election.enable": "true"}
    assert found(3, None, **changed) == {"unclean.leader.election": "failed"}


def test_offsets_of_groups_on_one_broker() -> None:
    changed = {"offsets.topic.replication.factor": "1"}
    assert found(3, None, **changed) == {"offsets of groups": "failed"}
    assert found(1, None, **changed) == {}


def test_topics_that_outlive_the_offsets_of_idle_groups() -> None:
    assert found(3, log_retention_hours="720") == {"retention": "warning"}
    assert found(3, log_retention_ms="-1") == {"retention": "warning"}
    assert found(3, KafkaOptions(retention=60.0), log_retention_hours="720") == {}


@pytest.mark.kafka
@pytest.mark.parametrize("ahead", [-30.0, 30.0])
async def test_clocks_that_differ(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    set_clock(monkeypatch, checks, ahead)
    clock = (await diagnosis(f"{server('kafka').url}?partitions=1"))["clock"]
    assert clock.outcome == "warning"
    assert f"{'ahead of' if ahead > 0 else 'behind'} this machine's" in clock.detail
