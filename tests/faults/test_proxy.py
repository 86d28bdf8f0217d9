"""The proxy's faults, on a server that echoes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from benchmarks.chaos.proxy import Proxy

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except ConnectionError:
            assert reader.at_eof() or reader.exception()
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


async def linked(proxy: Proxy) -> Link:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def say(link: Link, text: bytes, *, within: float = 30.0) -> bytes:
    reader, writer = link
    writer.write(text)
    async with asyncio.timeout(within):
        return await reader.readexactly(len(text))


async def ended(link: Link) -> None:
    """Return when the link is broken: reset, or closed after a reset that came too early to see."""
    with suppress(ConnectionError):
        async with asyncio.timeout(30):
            await link[0].read()


async def usable(proxy: Proxy) -> None:
    """Assert that a new link works."""
    link = await linked(proxy)
    assert await say(link, b"y") == b"y"
    link[1].close()


async def test_it_passes_and_counts(proxy: Proxy) -> None:
    link = await linked(proxy)
    assert await say(link, b"hello") == b"hello"
    assert (proxy.up.bytes, proxy.down.bytes, proxy.accepted) == (5, 5, 1)
    link[1].close()


async def test_cut(proxy: Proxy) -> None:
    link = await linked(proxy)
    await say(link, b"x")
    assert proxy.cut() == 1
    await ended(link)
    await usable(proxy)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_stall_one_way(proxy: Proxy, way: str) -> None:
    link = await linked(proxy)
    await say(link, b"x")
    proxy.stall(getattr(proxy, way))
    with pytest.raises(TimeoutError):
        await say(link, b"held", within=0.2)
    assert proxy.up.bytes == (1 if way == "up" else 5)
    assert proxy.down.bytes == 1
    proxy.heal()
    async with asyncio.timeout(30):
        assert await link[0].readexactly(4) == b"held"
    link[1].close()


async def test_delay(proxy: Proxy) -> None:
    link = await linked(proxy)
    proxy.down.delay = 0.2
    started = asyncio.get_running_loop().time()
    await say(link, b"x")
    assert asyncio.get_running_loop().time() - started >= 0.2
    link[1].close()


async def test_reset_in_the_midst_of_a_reply(proxy: Proxy) -> None:
    link = await linked(proxy)
    proxy.down.reset_after = 3
    link[1].write(b"hello")
    await ended(link)
    assert proxy.up.bytes == 5
    await usable(proxy)


async def test_half_open(proxy: Proxy) -> None:
    link = await linked(proxy)
    await say(link, b"x")
    assert proxy.freeze() == 1
    with pytest.raises(TimeoutError):
        await say(link, b"anyone?", within=0.2)
    await usable(proxy)
    link[1].close()


async def test_a_peer_that_vanished_accepts_and_never_answers(proxy: Proxy) -> None:
    proxy.vanish()
    link = await linked(proxy)
    with pytest.raises(TimeoutError):
        await say(link, b"x", within=0.2)
    proxy.heal()
    await ended(link)
    await usable(proxy)


async def test_refuse(proxy: Proxy) -> None:
    proxy.accepting = False
    await ended(await linked(proxy))
    proxy.heal()
    await usable(proxy)
