"""Users of NATS with exactly the rights that the page names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.nats import NATS
from tests.adapters.permissions import (
    CONSUMER,
    PUBLISHER,
    assert_healthy,
    assert_refused,
    blocks,
    exercise,
    prepare,
)
from tests.adapters.private import private_server

pytestmark = [pytest.mark.nats, pytest.mark.xdist_group("nats-private")]

TEMPORARY = re.compile(r"\$JS\.API\.CONSUMER\.DELETE\.orders(_billing_dlq)?\.anymq-")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a server with the users of the page and an operator, and its log."""
    users = "".join(blocks("nats")) + "{ user: operator, password: SECRET }"
    text = f"authorization {{ users: [ {users} ] }}\n"
    with private_server(NATS(), tmp_path, lambda old: old + text, ready=False) as port:
        yield port, tmp_path / "log"


def url(port: int, user: str) -> str:
    return f"nats://{user}:SECRET@127.0.0.1:{port}"


@pytest.mark.parametrize("declare", [True, False])
async def test_the_page_names_all_rights(server: tuple[int, Path], declare: bool) -> None:
    port, log = server
    admin = url(port, "operator")
    if declare:
        users = [url(port, f"{user}-declaring") for user in (PUBLISHER, CONSUMER)]
    else:
        await prepare(admin)
        users = [f"{url(port, user)}?declare=false" for user in (PUBLISHER, CONSUMER)]
    await exercise(admin, users[0], users[1], letters=1 if declare else 2)
    refused = re.findall(r'Violation - Subject "([^"]+)"', log.read_text())
    # Temporary consumers, which the server deletes by itself.
    assert [name for name in refused if not TEMPORARY.match(name)] == []


async def test_the_page_names_no_more_than_the_topic(server: tuple[int, Path]) -> None:
    port, _ = server
    for user in (PUBLISHER, CONSUMER):
        await assert_refused(f"{url(port, user)}?declare=false", "invoices")


async def test_a_diagnosis_finds_nothing_failed(server: tuple[int, Path]) -> None:
    port, _ = server
    for user in (PUBLISHER, CONSUMER):
        await assert_healthy(f"{url(port, user)}?declare=false")
    await assert_healthy(url(port, "doctor"))
