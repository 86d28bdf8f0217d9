"""Diagnosis: every check ends and says something, and nothing of it is left."""

from __future__ import annotations

import asyncio

from ...broker import Broker
from ...connect import connect
from ...diagnosis import diagnose
from ...driver.checks import Check
from ...operating.trial import STEPS
from ..harness import random_name
from ..tools import until
from .base import Base
from .drivers import open_files
from .needs import needs


class Diagnosis(Base):
    """Rules of `Driver.checks`, on a server that is in order."""

    async def test_a_server_in_order_fails_no_check(self, url: str) -> None:
        checks = await _checks(url)
        assert [check for check in checks if check.outcome in ("failed", "skipped")] == []
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)
        assert {"URL", "adapter", "connection"} < set(names)
        assert all(check.detail for check in checks)
        assert all(check.fix for check in checks if check.outcome == "warning")

    async def test_without_declare_nothing_is_created(self, url: str) -> None:
        checks = await _checks(f"{url}{'&' if '?' in url else '?'}declare=false")
        assert [check for check in checks if check.outcome == "failed"] == []
        assert checks[-1].name == "permissions"
        assert checks[-1].outcome == "unknown"
        assert not {check.name for check in checks} & set(STEPS)


@needs("admin")
class DiagnosisTrial(Base):
    """Rules of the temporary topic on which permissions are tried."""

    async def test_every_permission_is_tried(self, url: str, broker: Broker) -> None:
        tried = [check for check in await _checks(url) if check.name in STEPS]
        assert [check.name for check in tried] == list(STEPS)
        assert {check.outcome for check in tried} == {"ok"}

    async def test_a_diagnosis_leaves_nothing(self, url: str, broker: Broker) -> None:
        prefix = random_name()
        await broker.aclose()  # SQLite keeps files open that another connection has closed.
        before = open_files()
        await _checks(url, prefix=prefix)
        await until(lambda: open_files() <= before)
        async with connect(url) as other:
            assert await _names(other, prefix) == []

    async def test_a_diagnosis_that_is_stopped_leaves_nothing(
        self, url: str, broker: Broker
    ) -> None:
        prefix = random_name()
        checks = diagnose(url, prefix=prefix)
        async with asyncio.timeout(60):
            async for check in checks:
                if check.name == "can receive":
                    break
            await checks.aclose()
        assert await _names(broker, prefix) == []


async def _names(broker: Broker, prefix: str) -> list[str]:
    return [name for name in await broker.driver.topics() if name.startswith(prefix)]


async def _checks(url: str, **options: str) -> list[Check]:
    async with asyncio.timeout(120):
        return [check async for check in diagnose(url, **options)]
