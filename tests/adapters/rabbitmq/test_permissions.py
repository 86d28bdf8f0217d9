"""Users of RabbitMQ with exactly the rights that the page names."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator

import pytest

from brokers.rabbitmq import RabbitMQ
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

pytestmark = [pytest.mark.rabbitmq, pytest.mark.xdist_group("rabbitmq-private")]

VHOSTS = ("declared", "undeclared")
"""One for the test in which everything exists, and one for that in which nothing does."""


def rights() -> dict[str, list[str]]:
    """Return the patterns to configure, write and read of the page's users, and of an operator."""
    found = {"operator": [".*", ".*", ".*"]}
    for command in commands("rabbitmq"):
        tool, action, option, _, user, *patterns = shlex.split(command)
        assert (tool, action, option) == ("rabbitmqctl", "set_permissions", "-p")
        found[user] = patterns
    return found


def definitions() -> dict[str, object]:
    """Return users and rights as the server imports them at its start."""
    salt = b"salt"
    secret = base64.b64encode(salt + hashlib.sha256(salt + b"SECRET").digest()).decode()
    named = rights()
    return {
        "vhosts": [{"name": name} for name in ("/", *VHOSTS)],
        "users": [
            {
                "name": name,
                "password_hash": secret,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name in named
        ],
        "permissions": [
            {"user": name, "vhost": vhost, "configure": configure, "write": write, "read": read}
            for name, (configure, write, read) in named.items()
            for vhost in VHOSTS
        ],
    }


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("rabbitmq")
    (folder / "definitions.json").write_text(json.dumps(definitions()))

    def with_users(text: str) -> str:
        return f"{text}load_definitions = {folder}/definitions.json\n"

    with private_server(RabbitMQ(), folder, with_users, ready=False) as found:
        yield found


def url(port: int, user: str, vhost: str) -> str:
    return f"amqp://{user}:SECRET@127.0.0.1:{port}/{vhost}?settle_time=0"


async def test_the_page_names_all_rights_of_users_who_declare(port: int) -> None:
    admin, *users = (
        url(port, user, "undeclared")
        for user in ("operator", f"{PUBLISHER}-declaring", f"{CONSUMER}-declaring")
    )
    await exercise(admin, *users)


async def test_the_page_names_all_rights_where_everything_exists(port: int) -> None:
    admin = url(port, "operator", "declared")
    await prepare(admin)
    users = (f"{url(port, user, 'declared')}&declare=false" for user in (PUBLISHER, CONSUMER))
    await exercise(admin, *users, letters=2)


async def test_the_page_names_no_more_than_the_topic(port: int) -> None:
    for user in (PUBLISHER, CONSUMER):
        await assert_refused(f"{url(port, user, 'declared')}&declare=false", "invoices")
    for user in (f"{PUBLISHER}-declaring", f"{CONSUMER}-declaring"):
        await assert_refused(url(port, user, "undeclared"), "invoices")


async def test_a_diagnosis_finds_nothing_failed(port: int) -> None:
    for user in (PUBLISHER, CONSUMER):
        await assert_healthy(f"{url(port, user, 'declared')}&declare=false")
    await assert_healthy(url(port, "doctor", "declared"))
