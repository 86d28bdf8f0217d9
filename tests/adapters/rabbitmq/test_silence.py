"""A connection on which nothing comes any more is cut, whatever the client library thinks of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL

from anymq.testing.tools import until
from anymq_rabbitmq.client import codec
from anymq_rabbitmq.client.transport import Transport

SILENCE = 0.4


@asynccontextmanager
async def connected(pause: float | None) -> AsyncIterator[Transport]:
    """Connect to a server that says a heartbeat every `pause` seconds; None: only one."""

    over, ended = asyncio.Event(), asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(codec.HEARTBEAT)
        while not over.is_set():
            if pause is not None and not writer.is_closing():
                writer.write(codec.HEARTBEAT)
            await asyncio.sleep(pause or SILENCE)
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = Transport(close_timeout=1.0, silence=SILENCE)
    try:
        await transport.create(URL(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        yield transport
    finally:
        transport.abort()
        over.set()
        await ended.wait()
        server.close()
        await server.wait_closed()


async def test_a_silent_connection_is_cut() -> None:
    async with connected(None) as transport:
        assert transport.is_open
        await until(lambda: not transport.is_open)


async def test_a_connection_that_beats_stays() -> None:
    async with connected(SILENCE / 20) as transport:
        await asyncio.sleep(4 * SILENCE)
        assert transport.is_open


async def test_a_process_that_stood_still_hears_what_came_meanwhile() -> None:
    async with connected(SILENCE / 20) as transport:
        await asyncio.sleep(SILENCE / 2)
        time.sleep(3 * SILENCE)  # noqa: ASYNC251
        await asyncio.sleep(SILENCE)
        assert transport.is_open
