"""Users of Redis with exactly the rights that the page names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from brokers.redis import Redis
from tests.adapters.permissions import (
    CONSUMER,
    PUBLISHER,
    assert_healthy,
    assert_refused,
    commands,
    exercise,
    prepare,
)
from tests.adapters.private import private_server

pytestmark = [pytest.mark.redis, pytest.mark.xdist_group("redis-private")]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("redis")
    with private_server(Redis(), folder, lambda text: text) as found:
        yield found


@pytest.fixture
def server(port: int) -> Iterator[Any]:
    with redis.Redis(port=port, decode_responses=True) as client:
        client.flushall()
        for command in commands("redis"):
            client.execute_command(*command.split())
        yield client


def url(port: int, user: str) -> str:
    return f"redis://{user}:SECRET@127.0.0.1:{port}"


@pytest.mark.parametrize("declare", [True, False])
async def test_the_page_names_all_rights(server: Any, port: int, declare: bool) -> None:
    admin, option = f"redis://127.0.0.1:{port}", "" if declare else "?declare=false"
    if not declare:
        await prepare(admin)
    server.acl_log_reset()
    users = (url(port, PUBLISHER) + option, url(port, CONSUMER) + option)
    await exercise(admin, *users, letters=1 if declare else 2)
    refused = {(entry["object"], entry["username"]) for entry in server.acl_log()}
    # Asked for on connecting, for a warning that is not given without the right to it.
    assert {name for name, _ in refused} <= {"config|get"}


async def test_the_page_names_no_more_than_the_topic(server: Any, port: int) -> None:
    await assert_refused(url(port, PUBLISHER), "invoices")
    await assert_refused(url(port, CONSUMER), "invoices")
    with redis.Redis(port=port, username=PUBLISHER, password="SECRET") as client:
        for words in (["FLUSHALL"], ["KEYS", "*"], ["XLEN", "{orders}.billing._retry"]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*words)


async def test_a_diagnosis_finds_nothing_failed(server: Any, port: int) -> None:
    for user in (PUBLISHER, CONSUMER):
        await assert_healthy(f"{url(port, user)}?declare=false")
    keys = ["~anymq-doctor-*", "~{anymq-doctor-*"]
    server.execute_command("ACL", "SETUSER", PUBLISHER, *keys)
    await assert_healthy(url(port, PUBLISHER))
