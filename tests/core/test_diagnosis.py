"""`diagnose`: what fails before a driver is open, what a driver says, and the temporary topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, ClassVar

import pytest

import anymq
from anymq import AccessDenied, Check, ConfigurationError
from anymq.driver import Driver, ErrorTable, Outcome, Record, TopicSpec, inspect, register
from anymq.driver.checks import clock_difference
from anymq.operating.trial import STEPS, try_topic
from anymq.testing.harness import random_name
from anymq_memory import MemoryDriver


async def diagnosis(url: str, **options: str) -> dict[str, Check]:
    async with asyncio.timeout(60):
        return {check.name: check async for check in anymq.diagnose(url, **options)}


class Denied(Exception):
    """The client's error for a missing permission."""


class Restricted(MemoryDriver):
    """A memory driver whose user lacks rights, or whose server misbehaves."""

    errors: ClassVar[ErrorTable] = {
        **MemoryDriver.errors,
        Denied: AccessDenied,
    }
    grants: ClassVar[Mapping[str, str]] = {
        "can publish": "GRANT WRITE",
        "can delete": "GRANT DELETE",
    }
    denied: ClassVar[set[str]] = set()

    async def publish(self, records: Sequence[Record]) -> Sequence[Outcome]:
        if "publish" in self.denied:
            return [Denied("no write for bob")]
        return await super().publish(records)

    async def delete_topic(self, topic: TopicSpec) -> None:
        if "delete" in self.denied:
            raise Denied("no delete for bob")
        await super().delete_topic(topic)

    async def describe_topic(self, topic: TopicSpec) -> Any:
        if "describe" in self.denied:
            raise RuntimeError("unforeseen")
        return await super().describe_topic(topic)

    async def checks(self, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
        if "checks" in self.denied:
            raise RuntimeError("a defect of hunter2")
        yield Check.ok("told", f"the password is {'hunter2'}")


register("restricted", f"{__name__}:Restricted")


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    found: set[str] = set()
    monkeypatch.setattr(Restricted, "denied", found)
    return found


@pytest.mark.parametrize(
    ("url", "failed", "words"),
    [
        ("no url", "URL", "scheme://"),
        ("redis://user:hunter2/x@host", "URL", "percent-encode"),
        ("pigeons://host", "adapter", "pigeons://"),
        ("redis://host?tiemout=1", "URL", "did you mean 'timeout'"),
        ("redis://one,two", "URL", "one host"),
        ("rediss://host?ca=/nosuch.pem", "options", "cannot be used"),
        ("redis://user:hunter2@example.com", "options", "clear text"),
        ("nats://host/path", "options", "no path"),
        ("kafka://host/path", "URL", "path"),
    ],
)
async def test_what_is_wrong_with_a_url(url: str, failed: str, words: str) -> None:
    found = await diagnosis(url)
    (wrong,) = [check for check in found.values() if check.outcome == "failed"]
    assert wrong.name == failed
    assert words in wrong.detail
    assert wrong.fix
    assert "hunter2" not in str(found)


async def test_without_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANYMQ_URL", raising=False)
    with pytest.raises(ConfigurationError, match="ANYMQ_URL"):
        await anext(anymq.diagnose())
    with pytest.raises(ConfigurationError, match="topic name"):
        await anext(anymq.diagnose("memory://", prefix="#"))


async def test_the_fix_of_a_missing_permission(denied: set[str]) -> None:
    denied.add("publish")
    found = await diagnosis("restricted://")
    assert found["can create topics"].outcome == "ok"
    refused = found["can publish"]
    assert (refused.outcome, refused.detail, refused.fix) == (
        "failed",
        "no write for bob",
        "GRANT WRITE",
    )
    for name in STEPS[2:-1]:
        assert found[name].outcome == "skipped"
        assert found[name].detail == "needs: can publish"
    assert found["can delete"].outcome == "ok"


async def test_a_topic_that_cannot_be_deleted_is_named(denied: set[str]) -> None:
    denied.add("delete")
    found = (await diagnosis("restricted://", prefix="mine."))["can delete"]
    assert found.outcome == "failed"
    assert "GRANT DELETE" in found.fix
    assert "the temporary topic mine." in found.fix


async def test_an_unforeseen_error_of_a_step_is_a_check(denied: set[str]) -> None:
    denied.add("describe")
    found = await diagnosis("restricted://")
    assert found["can describe"].detail == "unforeseen"
    assert found["can describe"].outcome == "failed"
    assert found["can delete"].outcome == "ok"


async def test_checks_that_raise_are_a_check_and_permissions_are_tried(denied: set[str]) -> None:
    denied.add("checks")
    found = await diagnosis("restricted://bob:hunter2@localhost")
    assert found["server"].outcome == "failed"
    assert "RuntimeError: a defect of ***" in found["server"].detail
    assert found["can publish"].outcome == "ok"


@pytest.mark.usefixtures("denied")
async def test_a_server_that_repeats_the_password() -> None:
    found = await diagnosis("restricted://bob:hunter2@localhost")
    assert found["told"].detail == "the password is ***"


async def test_a_cancelled_trial_deletes_its_topic() -> None:
    name = random_name()
    async with anymq.connect("memory://") as broker:
        driver: Driver = broker.driver
        topic = TopicSpec(name=name, native=name)

        async def run() -> None:
            async for check in try_topic(driver, topic):
                if check.name == "can create topics":
                    created.set()
                    await asyncio.sleep(60)

        created = asyncio.Event()
        task = asyncio.create_task(run())
        await created.wait()
        assert name in await driver.topics()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.get_running_loop().shutdown_asyncgens()
        assert name not in await driver.topics()


async def test_inspections_that_fail_or_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anymq.driver.checks.INSPECTION_SECONDS", 0.05)

    async def denied() -> Sequence[Check]:
        raise Denied("no")

    async def hangs() -> Sequence[Check]:
        await asyncio.Event().wait()
        return []

    async def defect() -> Sequence[Check]:
        raise RuntimeError("a defect")

    made = inspect({"a": denied, "b": hangs}, Restricted.errors, fixes={"a": "GRANT"})
    a, b = [check async for check in made]
    assert a == Check.unknown("a", "no", fix="GRANT")
    assert b.outcome == "unknown"
    assert "no answer" in b.detail
    with pytest.raises(RuntimeError, match="a defect"):
        _ = [check async for check in inspect({"c": defect}, Restricted.errors)]


@pytest.mark.parametrize(
    ("told", "outcome", "words"),
    [
        (100.0, "ok", "agrees"),
        (100.5, "ok", "agrees"),
        (98.0, "warning", "2.0 s behind"),
        (105.0, "warning", "3.0 s ahead of"),
        (5102.0, "warning", "5000 s ahead of"),
    ],
)
def test_the_time_of_the_answer_is_no_difference(told: float, outcome: str, words: str) -> None:
    found = clock_difference(told, 100.0, 102.0)
    assert found.outcome == outcome
    assert words in found.detail


async def test_a_diagnosis_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await diagnosis("memory://")
    assert caplog.records == []
