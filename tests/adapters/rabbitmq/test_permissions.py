"""Users of RabbitMQ with exactly the rights that the page names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.adapters.permissions import (
    CONSUMER,
    PUBLISHER,
    assert_healthy,
    assert_refused,
    commands,
    exercise,
    prepare,
)
from tests.adapters.rabbitmq.users import private_rabbitmq

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


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("rabbitmq")
    with private_rabbitmq(folder, rights(), password="SECRET", vhosts=VHOSTS, ready=False) as found:
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
