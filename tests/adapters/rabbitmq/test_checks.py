"""Diagnosis of RabbitMQ: users without rights, clocks that differ, old releases, alarms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import anymq
from anymq_rabbitmq import checks
from anymq_rabbitmq.checks import version_check
from brokers import server
from tests.adapters.diagnosing import diagnosis, set_clock
from tests.adapters.rabbitmq.users import private_rabbitmq

pytestmark = [pytest.mark.rabbitmq, pytest.mark.xdist_group("rabbitmq-private")]

NOTHING, ALL = "^$", ".*"
OWN = r"^(_?anymq[.-].*|amq\.default)$"
USERS = {
    "guest": (ALL, ALL, ALL),
    "own": (OWN, OWN, OWN),
    "reader": (NOTHING, NOTHING, ALL),
    "silent": (ALL, r"^(?!doctor\.[a-z0-9]+$).*", ALL),
}
"""By user the rights to configure, write and read."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("rabbitmq")
    with private_rabbitmq(folder, USERS, password="guest") as found:
        yield found


async def test_a_user_with_rights_to_a_prefix(port: int) -> None:
    found = await diagnosis(f"amqp://own:guest@127.0.0.1:{port}/?settle_time=0")
    assert [check for check in found.values() if check.outcome in ("failed", "skipped")] == []
    assert found["clock"].outcome == "ok"


async def test_a_user_who_may_create_nothing(port: int) -> None:
    found = await diagnosis(f"amqp://reader:guest@127.0.0.1:{port}/?settle_time=0")
    failed = found["can create topics"]
    assert failed.outcome == "failed"
    assert "refused" in failed.detail
    assert "set_permissions" in failed.fix
    assert found["clock"].outcome == "unknown"
    assert found["can publish"].outcome == "skipped"


async def test_a_user_who_may_not_publish(port: int) -> None:
    url = f"amqp://silent:guest@127.0.0.1:{port}/?settle_time=0"
    found = await diagnosis(url, prefix="doctor.")
    assert found["can create topics"].outcome == "ok"
    assert found["can publish"].outcome == "failed"
    assert "refused" in found["can publish"].detail
    assert "write" in found["can publish"].fix
    assert found["can delete"].outcome == "ok"


async def test_a_wrong_password_and_a_wrong_virtual_host(port: int) -> None:
    found = await diagnosis(f"amqp://guest:hunter2@127.0.0.1:{port}/")
    assert found["connection"].outcome == "failed"
    assert "hunter2" not in str(found)
    found = await diagnosis(f"amqp://guest:guest@127.0.0.1:{port}/nosuch")
    assert found["connection"].outcome == "failed"
    assert "nosuch" in found["connection"].detail


async def test_a_plaintext_server_behind_the_tls_scheme(port: int) -> None:
    found = await diagnosis(f"amqps://127.0.0.1:{port}/")
    assert found["TLS"].outcome == "failed"
    assert "scheme without TLS" in found["TLS"].fix


@pytest.mark.parametrize("ahead", [-86400.0, -90.0, -5.0, 0.0, 5.0, 90.0, 86400.0])
async def test_clocks_that_differ(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """This machine's clock is set, which is the same as if the server's were set back."""
    set_clock(monkeypatch, checks, ahead)
    found = (await diagnosis(f"{server('rabbitmq').url}?settle_time=0"))["clock"]
    if not ahead:
        assert found.outcome == "ok"
        return
    assert found.outcome == "warning"
    assert f"{'ahead of' if ahead > 0 else 'behind'} this machine's" in found.detail
    seconds = float(found.detail.split(" s ")[0].rsplit(" ", 1)[1])
    assert abs(seconds - abs(ahead)) <= 2.5


@pytest.mark.parametrize(
    ("version", "outcome"),
    [((3, 9, 1), "failed"), ((3, 13, 0), "warning"), ((4, 0, 5), "ok"), ((), "failed")],
)
def test_old_releases(version: tuple[int, ...], outcome: str) -> None:
    assert version_check(version).outcome == outcome


@pytest.mark.xdist_group("rabbitmq-faults")
async def test_an_alarm(tmp_path: Path) -> None:
    faulty = server("rabbitmq", instance="faults")
    faulty.up()
    if not faulty.alarm:
        pytest.skip("a container cannot be filled")
    faulty.starve()
    try:
        found = await diagnosis(f"{faulty.url}?settle_time=0&confirm_timeout=2")
    finally:
        faulty.relieve()
    assert found["alarms"].outcome == "failed"
    assert "disk_free_limit" in found["alarms"].fix
    async with anymq.connect(faulty.url) as broker:
        left = [name for name in await broker.admin.topics() if name.startswith("anymq-doctor-")]
    assert left == []
