"""Diagnosis of Redis: settings that lose messages, and users without rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from brokers.redis import Redis
from tests.adapters.diagnosing import diagnosis
from tests.adapters.private import private_server

pytestmark = [pytest.mark.redis, pytest.mark.xdist_group("redis-private")]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with private_server(Redis(), tmp_path_factory.mktemp("redis"), lambda text: text) as found:
        yield found


@pytest.fixture
def server(port: int) -> Iterator[redis.Redis]:
    """The server, with the settings of the development servers again at the end."""
    with redis.Redis(port=port, decode_responses=True) as client:
        names = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
        before = {name: str(client.config_get(name)[name]) for name in names}
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        client.acl_deluser("limited")


def grant(server: Any, rights: str) -> None:
    """Make a user `limited` with these rights."""
    server.execute_command("ACL", "SETUSER", "limited", *rights.split())


async def test_a_server_without_an_append_only_file(server: redis.Redis, port: int) -> None:
    server.config_set("appendonly", "no")
    found = await diagnosis(f"redis://127.0.0.1:{port}")
    assert found["append-only file"].outcome == "failed"
    assert "loses everything since its last snapshot" in found["append-only file"].detail
    assert "appendonly yes" in found["append-only file"].fix
    assert found["can publish"].outcome == "ok"


@pytest.mark.parametrize(
    ("policy", "outcome"), [("always", "ok"), ("everysec", "ok"), ("no", "warning")]
)
async def test_how_often_the_file_is_forced(
    server: redis.Redis, port: int, policy: str, outcome: str
) -> None:
    server.config_set("appendfsync", policy)
    found = (await diagnosis(f"redis://127.0.0.1:{port}"))["append-only file"]
    assert found.outcome == outcome
    assert policy in found.detail


@pytest.mark.parametrize(
    ("policy", "limit", "outcome"),
    [
        ("noeviction", "0", "ok"),
        ("allkeys-lru", "0", "warning"),
        ("allkeys-lru", "200mb", "failed"),
        ("volatile-lru", "200mb", "warning"),
    ],
)
async def test_eviction(
    server: redis.Redis, port: int, policy: str, limit: str, outcome: str
) -> None:
    server.config_set("maxmemory", limit)
    server.config_set("maxmemory-policy", policy)
    found = (await diagnosis(f"redis://127.0.0.1:{port}"))["eviction"]
    assert found.outcome == outcome
    assert policy in found.detail
    assert ("noeviction" in found.fix) is (outcome != "ok")


async def test_a_server_without_memory(server: redis.Redis, port: int) -> None:
    server.config_set("maxmemory", "1")
    found = await diagnosis(f"redis://127.0.0.1:{port}")
    assert found["memory"].outcome == "failed"
    failed = [check for check in found.values() if check.name.startswith("can ")]
    assert any(check.outcome == "failed" and "maxmemory" in check.detail for check in failed)


async def test_a_user_who_may_do_what_the_documentation_says(
    server: redis.Redis, port: int
) -> None:
    rights = "on >secret resetkeys ~anymq-doctor-* ~{anymq-doctor-* -@all +@connection +@read"
    rights += " +@write +eval +evalsha +time"
    grant(server, rights)
    found = await diagnosis(f"redis://limited:secret@127.0.0.1:{port}")
    assert [check for check in found.values() if check.outcome in ("failed", "skipped")] == []
    assert found["eviction"].outcome == "unknown"
    assert "config|get" in found["eviction"].fix
    assert found["server version"].outcome == "ok"


async def test_a_user_who_may_not_publish(server: redis.Redis, port: int) -> None:
    rights = "on >secret allkeys -@all +@connection +@read +eval +evalsha +time"
    grant(server, rights)
    found = await diagnosis(f"redis://limited:secret@127.0.0.1:{port}")
    failed = [check for check in found.values() if check.outcome == "failed"]
    assert len(failed) == 1
    assert "no permissions" in failed[0].detail
    assert "ACL SETUSER" in failed[0].fix
    assert "secret" not in str(found)


async def test_a_wrong_password(server: redis.Redis, port: int) -> None:
    found = await diagnosis(f"redis://limited:hunter2@127.0.0.1:{port}")
    assert found["connection"].outcome == "failed"
    assert "password" in found["connection"].fix
    assert "hunter2" not in str(found)


async def test_a_replica(server: redis.Redis, port: int) -> None:
    server.replicaof("127.0.0.1", "1")
    try:
        found = await diagnosis(f"redis://127.0.0.1:{port}")
    finally:
        server.replicaof("NO", "ONE")
    assert found["role"].outcome == "failed"
    assert "primary" in found["role"].fix
    assert found["can publish"].outcome != "ok"
