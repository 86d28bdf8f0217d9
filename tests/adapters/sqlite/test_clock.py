"""The file's clock: leases and claims by it, over steps of the wall clock and boots of the host."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from anymq.driver import ClaimState
from anymq.testing.samples import join
from anymq.testing.tools import set_wall_clock
from anymq.url import URL
from anymq_sqlite import SqliteStore
from anymq_sqlite.file import schema
from tests.adapters.sqlite.support import Bench, records, spec
from tests.adapters.support import attempt, bodies, nothing, take


def boot(monkeypatch: pytest.MonkeyPatch, name: str, since: float) -> None:
    """Simulate a boot with the id `name`, which is `since` seconds younger than the real one."""
    real = schema.seconds_since_boot()
    began = time.monotonic()
    monkeypatch.setattr(schema, "boot_id", lambda: name)
    monkeypatch.setattr(
        schema, "seconds_since_boot", lambda: time.monotonic() - began + real - since
    )


async def test_leases_are_over_after_a_boot_and_waits_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(3))
    got = await take(source, 3)
    await source.nack([bench.nack(got[1], delay=3600)])
    await source.nack([bench.nack(got[2], delay=1)])
    with sqlite3.connect(bench.path) as before:
        rows = before.execute("SELECT * FROM pending").fetchall()
    before.close()
    await bench.aclose()
    put_back = "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?)"
    with sqlite3.connect(bench.path) as killed:  # as if the process had been killed
        killed.executemany(put_back, rows)
    killed.close()
    boot(monkeypatch, "another", since=schema.seconds_since_boot())
    driver = await bench.open()
    source = await join(driver, spec())
    again = await take(source, 2)
    assert [(item.body, attempt(item)) for item in again] == [(b"0", 2), (b"2", 2)]
    assert await nothing(source)
    await source.aclose()


async def test_claims_are_over_after_a_boot_and_what_is_done_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = URL.parse(f"sqlite:///{tmp_path}/seen.db")
    store = await SqliteStore.open(url)
    await store.begin_many(["held", "done"], "me", 3600)
    await store.complete("done", "me", 3600)
    await store.mark("count", 3600)
    await store.aclose()
    boot(monkeypatch, "another", since=schema.seconds_since_boot())
    store = await SqliteStore.open(url)
    claims = [await store.begin(key, "you", 30) for key in ("held", "done")]
    assert [claim.state for claim in claims] == [ClaimState.NEW, ClaimState.DONE]
    assert await store.mark("count", 30) == 2
    await store.aclose()


async def test_where_boots_have_no_name_a_step_of_the_wall_clock_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BOOT_ID_FILE", bench.path / "none")
    driver, other = await bench.open(), await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(1))
    (got,) = await take(source, 1)
    set_wall_clock(monkeypatch, 60.0)
    await other.aclose()
    other = await bench.open()
    assert await nothing(await bench.join(other))
    await source.ack([got])
    await source.aclose()


async def test_a_wait_is_over_when_the_wall_clock_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock of a host without a battery may be days behind when the file is opened."""
    set_wall_clock(monkeypatch, -3 * 86400)
    driver = await bench.open()
    source = await join(driver, spec())
    await driver.publish(records(2))
    got = await take(source, 2)
    due = time.time() + 3 * 86400
    nack = "UPDATE pending SET due = ?, owner = NULL WHERE seq = 2"
    await driver.native.write(lambda db: db.execute(nack, (due,)))
    set_wall_clock(monkeypatch, 0.0)
    assert bodies(await take(source, 1)) == [b"1"]
    assert await nothing(source)
    await source.ack(got[:1])
    await source.aclose()
