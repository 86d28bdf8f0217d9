"""User and password as each server receives them, whatever characters they consist of.

No broker is needed: the login is the first thing that a client sends.
"""

from __future__ import annotations

import pytest

import anymq
from tests.adapters.capture import SERVERS, Asked, asking
from tests.core.test_url import USERINFO

BOTH = [(text, user, password) for text, user, password in USERINFO if user and password]


async def fails_to_connect(url: str, *servers: Asked) -> str:
    """Try until every server was asked, which a slow machine may not do in time; return why not."""
    while True:
        with pytest.raises(anymq.BrokerError) as failed:
            await anymq.connect(url)
        if all(server.logins for server in servers):
            return str(failed.value)


@pytest.mark.parametrize("scheme", SERVERS)
@pytest.mark.parametrize(("text", "user", "password"), BOTH)
async def test_user_and_password_arrive(scheme: str, text: str, user: str, password: str) -> None:
    async with asking(SERVERS[scheme]) as server:
        url = f"{scheme}://{text}@127.0.0.1:{server.port}?connect_timeout=0.5"
        await fails_to_connect(url, server)
        assert set(server.logins) == {(user, password)}


@pytest.mark.parametrize("scheme", SERVERS)
async def test_an_ipv6_host(scheme: str) -> None:
    async with asking(SERVERS[scheme], "::1") as server:
        url = f"{scheme}://user:p%40ss@[::1]:{server.port}?connect_timeout=0.5"
        assert "p@ss" not in await fails_to_connect(url, server)
        assert set(server.logins) == {("user", "p@ss")}


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats"])
async def test_every_host_is_asked_with_the_same_login(scheme: str) -> None:
    ask = SERVERS[scheme]
    async with asking(ask) as one, asking(ask, "::1") as two:
        hosts = f"127.0.0.1:{one.port},[::1]:{two.port}"
        await fails_to_connect(f"{scheme}://user:p@ss@{hosts}?connect_timeout=1", one, two)
        assert set(one.logins) == set(two.logins) == {("user", "p@ss")}


@pytest.mark.parametrize(
    ("scheme", "text", "login"), [("nats", "to%2Fken", "to/ken"), ("redis", ":p@ss", "p@ss")]
)
async def test_one_secret_without_a_user(scheme: str, text: str, login: str) -> None:
    async with asking(SERVERS[scheme]) as server:
        await fails_to_connect(
            f"{scheme}://{text}@127.0.0.1:{server.port}?connect_timeout=0.5", server
        )
        assert set(server.logins) == {(login,)}
