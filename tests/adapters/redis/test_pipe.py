"""The seam under redis-py, and what goes over a connection that it has opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis._parsers.base import BaseParser
from redis.asyncio import Connection
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from anymq_redis.pipe import Pipe
from anymq_redis.resp import pack
from tests.adapters.redis.support import Proxy


@pytest_asyncio.fixture
async def connection(server_url: str) -> Connection:
    return Connection(host="127.0.0.1", port=urlsplit(server_url).port or 6379, protocol=2)


@pytest_asyncio.fixture
async def pipe(connection: Connection) -> AsyncIterator[Pipe]:
    made = await Pipe.open(connection)
    yield made
    await made.aclose(1)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


@pytest.mark.redis
async def test_a_connection_of_the_client_has_the_streams_that_are_taken_over(
    connection: Connection,
) -> None:
    assert not connection.is_connected
    await connection.connect()  # type: ignore[no-untyped-call]
    assert isinstance(connection._reader, asyncio.StreamReader)
    assert isinstance(connection._writer, asyncio.StreamWriter)
    pipe = Pipe(connection, lambda _: None, lambda _: None)
    assert not connection.is_connected
    assert await pipe.ask(pack(b"PING"), 1, soon()) == [b"PONG"]
    await pipe.aclose(1)


def test_the_client_tells_errors_of_the_server_apart() -> None:
    parse: Callable[[str], Exception] = BaseParser.parse_error
    assert isinstance(parse("NOSCRIPT No matching script."), NoScriptError)
    assert isinstance(parse("READONLY x"), ReadOnlyError)
    wrong = parse("WRONGTYPE Operation against a key")
    assert isinstance(wrong, ResponseError)
    assert str(wrong).startswith("WRONGTYPE")


@pytest.mark.redis
async def test_replies_come_in_order_with_errors_in_their_place(pipe: Pipe) -> None:
    big = b"x" * 1_000_000
    commands = [pack(b"ECHO", big), pack(b"NO-SUCH"), pack(b"ECHO", b"")]
    first, error, last = await pipe.ask(b"".join(commands), 3, soon())
    assert (first, last) == (big, b"")
    assert isinstance(error, ResponseError)
    assert pipe.is_open


@pytest.mark.redis
async def test_who_is_cancelled_leaves_nothing_to_the_next(connection: Connection) -> None:
    idle: asyncio.Queue[Pipe] = asyncio.Queue()
    pipe = await Pipe.open(connection, on_idle=idle.put_nowait)
    answer = pipe.ask(pack(b"ECHO", b"first"), 1, soon())
    answer.cancel()
    assert await asyncio.wait_for(idle.get(), 30) is pipe
    assert await pipe.ask(pack(b"ECHO", b"second"), 1, soon()) == [b"second"]
    await pipe.aclose(1)


@pytest.mark.redis
async def test_an_answer_that_does_not_come_closes_it(server_url: str) -> None:
    lost: list[Pipe] = []
    async with Proxy(urlsplit(server_url).port or 6379) as proxy:
        port = urlsplit(proxy.url).port or 0
        connection = Connection(host="127.0.0.1", port=port, protocol=2)
        pipe = await Pipe.open(connection, on_lost=lost.append)
        proxy.answers.clear()
        with pytest.raises(TimeoutError):
            await pipe.ask(pack(b"PING"), 1, asyncio.get_running_loop().time() + 0.05)
        assert not pipe.is_open
        assert lost == [pipe]
        with pytest.raises(ConnectionError):
            await pipe.ask(pack(b"PING"), 1, soon())
        await pipe.aclose(1)


@pytest.mark.redis
async def test_what_nobody_asked_for_closes_it(pipe: Pipe) -> None:
    pipe.data_received(b"+HELLO\r\n")
    assert not pipe.is_open


@pytest.mark.redis
async def test_what_is_no_reply_closes_it(pipe: Pipe) -> None:
    answer = pipe.ask(pack(b"PING"), 1, soon())
    pipe.data_received(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(RedisError):
        await answer
    assert not pipe.is_open


@pytest.mark.redis
async def test_a_lost_connection_fails_what_is_under_way(pipe: Pipe) -> None:
    answer = pipe.ask(pack(b"BLPOP", b"nothing-here", b"5"), 1, soon())
    pipe.connection_lost(OSError("reset"))
    with pytest.raises(ConnectionError, match="reset"):
        await answer
