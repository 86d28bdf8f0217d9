"""Which host of a URL is asked, for how long, and what is said where none answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import anymq
from brokers import server

SCHEMES = {"kafka": "kafka", "rabbitmq": "amqp", "nats": "nats", "redis": "redis"}


@asynccontextmanager
async def swallowing() -> AsyncIterator[str]:
    """A host that takes connections and answers nothing."""
    writers: list[asyncio.StreamWriter] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        for writer in writers:
            writer.transport.abort()


@pytest.mark.parametrize("scheme", SCHEMES.values())
async def test_an_ipv6_host_where_no_server_listens(scheme: str) -> None:
    with pytest.raises(anymq.ConnectionLost, match=r"\[::1\]:1"):
        await anymq.connect(f"{scheme}://[::1]:1?connect_timeout=5")


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in list(SCHEMES)[:3]]
)
async def test_a_host_that_swallows_everything_leaves_time_for_the_next(backend: str) -> None:
    main = server(backend)
    main.up()
    scheme, _, rest = main.url.partition("://")
    user, at, address = rest.rpartition("@")
    async with swallowing() as hole:
        url = f"{scheme}://{user}{at}{hole},{address}"
        async with anymq.connect(f"{url}?connect_timeout=8") as broker:
            await broker.publish(f"hosts-{backend}", b"x", timeout=30)
