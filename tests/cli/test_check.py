"""`anymq check`, on every backend."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator

import pytest

import anymq as library
from anymq.testing import random_name
from anymq.testing.tools import take_acked
from tests.cli.groups import settled_group
from tests.cli.support import Command, run

# Nothing here is late: what is ends its process.
PATIENT = ("--timeout", "100s")


def test_connection(anymq: Command, url: str) -> None:
    done = anymq("check", "connection", *PATIENT, "-u", url)
    assert re.fullmatch(
        r"CONNECTION OK - \S+ answered in [0-9.]+ s \| seconds=[0-9.e-]+\n", done.out
    )
    slow = anymq("check", "connection", *PATIENT, "--crit", "100s", "-u", url, "--json").data
    assert (slow["check"], slow["status"], slow["exit"]) == ("connection", "ok", 0)
    assert slow["measures"]["seconds"]["crit"] == 100
    found = anymq("check", "connection", *PATIENT, "--warn", "0s", "-u", url, code=1)
    assert found.out.startswith("CONNECTION WARNING - ")
    assert len(found.out.splitlines()) == 1


def test_lag(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)  # one message is unsettled
    for warn, crit, code, status in (
        ("2", "3", 0, "OK"),
        ("1", "2", 1, "WARNING"),
        ("1", "1", 2, "CRITICAL"),
    ):
        limits = ("--warn", warn, "--crit", crit, *PATIENT, "-u", url)
        for names in ([topic], [topic, "billing"]):
            done = anymq("check", "lag", *names, *limits, code=code)
            assert re.fullmatch(
                rf"LAG {status} - billing of {topic}: (at least )?1 unsettled message "
                rf"\| lag=1;{warn};{crit}\n",
                done.out,
            )
    only = anymq("check", "lag", topic, "--crit", "1", "--json", *PATIENT, "-u", url, code=2).data
    assert only["measures"] == {"lag": {"value": 1, "warn": None, "crit": 1}}


def test_lag_as_an_age(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)
    known = anymq("group", "show", topic, "billing", "--json", "-u", url).data["lag_seconds"]
    limits = ("--warn", "1h", "--crit", "2h", *PATIENT, "-u", url)
    done = anymq("check", "lag", topic, *limits, code=3 if known is None else 0)
    expected = "does not report the age" if known is None else r"old \| age=[0-9.]+s;3600;7200"
    assert re.search(expected, done.out)
    if known is not None:
        late = anymq("check", "lag", topic, "--warn", "1ms", *PATIENT, "-u", url, code=1)
        assert late.out.startswith(f"LAG WARNING - billing of {topic}: the oldest is ")


def test_lag_of_several_groups_is_that_of_the_worst(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)

    async def settle() -> None:
        async with (
            library.connect(url) as broker,
            broker.subscribe(topic, group="audit") as deliveries,
        ):
            await take_acked(deliveries, 3)

    asyncio.run(settle())
    done = anymq("check", "lag", topic, "--crit", "1", *PATIENT, "-u", url, code=2)
    assert "billing" in done.out
    assert "audit" not in done.out
    anymq("check", "lag", topic, "audit", "--crit", "1", *PATIENT, "-u", url)


def test_dead_letters(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)  # one letter
    limits = (*PATIENT, "-u", url)
    for names in ([topic], [topic, "billing"]):
        done = anymq("check", "dlq", *names, *limits, code=1)
        assert done.out == f"DLQ WARNING - 1 dead letter (billing of {topic}: 1) | letters=1;1\n"
    assert anymq("check", "dlq", topic, "--crit", "1", *limits, code=2).out.startswith("DLQ CRIT")
    anymq("check", "dlq", topic, "--warn", "2", "--crit", "3", *limits)
    none = anymq("check", "dlq", topic, "broadcast", *limits)
    assert none.out == "DLQ OK - 0 dead letters | letters=0;1\n"


def test_unknown_names_are_unknown(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)
    for arguments, text in (
        (("lag", f"{topic}x", "--warn", "1"), "there is no topic"),
        (("lag", topic, "biling", "--warn", "1"), "did you mean 'billing'"),
        (("dlq", f"{topic}x"), "there is no topic"),
        (("dlq", topic, "biling"), "has no group"),
    ):
        found = anymq("check", *arguments, *PATIENT, "-u", url, code=3)
        assert re.match(r"(LAG|DLQ) UNKNOWN - ", found.out)
        assert text in found.out
        assert len(found.out.splitlines()) == 1


def test_a_topic_without_groups_is_unknown(anymq: Command, url: str, topic: str) -> None:
    anymq("topic", "create", topic, "-u", url)
    found = anymq("check", "lag", topic, "--warn", "1", *PATIENT, "-u", url, code=3)
    assert found.out == f"LAG UNKNOWN - topic '{topic}' has no group\n"
    anymq("check", "dlq", topic, *PATIENT, "-u", url)


@pytest.mark.parametrize("url", ["memory://"])
def test_wrong_usage_is_unknown(anymq: Command, url: str) -> None:
    for arguments, text in (
        (["lag", "t"], "give --warn or --crit"),
        (["lag", "t", "--warn", "many"], "no threshold"),
        (["lag", "t", "--warn", "1", "--crit", "5m"], "both numbers, or both durations"),
        (["lag", "t", "--warn", "9", "--crit", "5"], "--warn is more than --crit"),
        (["dlq", "--warn", "9", "--crit", "5"], "--warn is more than --crit"),
        (["connection", "--warn", "9"], "no duration"),
        (["connection", "--context", "x"], "--url and --context"),
        (["conection"], 'Did you mean "connection"'),
    ):
        failed = anymq("check", *arguments, "-u", url, code=3)
        assert text in failed.err
        assert len(failed.err.splitlines()) == 1
    assert anymq("check", "connection", "-u", "rabbit://x", code=3).out.startswith(
        "CONNECTION UNKNOWN - "
    )
    assert anymq("check", "lag", random_name(), "--warn", "1", "-u", url, code=3).out


def test_a_dead_broker(anymq: Command) -> None:
    url = "redis://user:hunter2@127.0.0.1:1/?connect_timeout=0.5"
    for arguments, code, begin in (
        (["connection"], 2, "CONNECTION CRITICAL - "),
        (["lag", "t", "--warn", "1"], 3, "LAG UNKNOWN - "),
        (["dlq"], 3, "DLQ UNKNOWN - "),
    ):
        found = anymq("check", *arguments, *PATIENT, "-u", url, code=code)
        assert found.out.startswith(begin)
        assert "hunter2" not in found.out + found.err
        assert len(found.out.splitlines()) == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "nats", "kafka", "amqp"])
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["connection"], 2, "CONNECTION CRITICAL - no answer within 1.0 s\n"),
        (["lag", "t", "--warn", "1"], 3, "LAG UNKNOWN - no answer within 1.0 s\n"),
    ],
)
def test_the_timeout_bounds_a_broker_that_does_not_answer(
    silent_port: int, scheme: str, arguments: list[str], code: int, line: str
) -> None:
    began = time.monotonic()
    url = f"{scheme}://127.0.0.1:{silent_port}?connect_timeout=600"
    ended = run("check", *arguments, "--timeout", "1s", "-u", url)
    assert (ended.code, ended.out) == (code, line)
    assert time.monotonic() - began < 60
