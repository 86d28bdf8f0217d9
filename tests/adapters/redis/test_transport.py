"""Both transports over connections of redis-py, and the choice between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.base import BaseParser
from redis.asyncio import Connection
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

import anymq
from anymq.driver import check_parts
from anymq_redis.client import compat
from anymq_redis.client.codec import pack, unpack
from anymq_redis.client.plain import PlainTransport
from anymq_redis.client.protocol import FastTransport
from anymq_redis.client.transport import Transport
from tests.adapters.redis.support import Proxy

Opened = Callable[..., Any]


def settings(port: int | None) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port or 6379, "protocol": 2}


@pytest.fixture
def address(server_url: str) -> dict[str, Any]:
    return settings(urlsplit(server_url).port)


@pytest.fixture(params=[FastTransport, PlainTransport])
def transport_class(request: pytest.FixtureRequest) -> type[Transport]:
    chosen: type[Transport] = request.param
    return chosen


@pytest_asyncio.fixture
async def transport(
    transport_class: type[Transport], address: dict[str, Any]
) -> AsyncIterator[Transport]:
    made = await transport_class.open(Connection, address)
    yield made
    await made.aclose(1)


@pytest_asyncio.fixture
async def fast(address: dict[str, Any]) -> AsyncIterator[FastTransport]:
    made = await FastTransport.open(Connection, address)
    yield made
    await made.aclose(1)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


@pytest.mark.redis
async def test_a_connection_of_the_client_has_the_streams_that_are_taken_over(
    address: dict[str, Any],
) -> None:
    connection = Connection(**address)
    assert not connection.is_connected
    await connection.connect()  # type: ignore[no-untyped-call]
    assert isinstance(connection._reader, asyncio.StreamReader)
    assert isinstance(connection._writer, asyncio.StreamWriter)
    transport = FastTransport(connection)
    assert not connection.is_connected
    assert await transport.ask(pack(b"PING"), 1, soon()) == [b"PONG"]
    await transport.aclose(1)


def test_the_client_tells_errors_of_the_server_apart() -> None:
    parse: Callable[[str], Exception] = BaseParser.parse_error
    assert isinstance(parse("NOSCRIPT No matching script."), NoScriptError)
    assert isinstance(parse("READONLY x"), ReadOnlyError)
    wrong = parse("WRONGTYPE Operation against a key")
    assert isinstance(wrong, ResponseError)
    assert str(wrong).startswith("WRONGTYPE")


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=5), max_size=5))
def test_commands_are_unpacked_as_they_were_packed(commands: list[list[bytes]]) -> None:
    assert unpack(b"".join(pack(*args) for args in commands)) == commands


@pytest.mark.redis
async def test_replies_come_in_order_with_errors_in_their_place(transport: Transport) -> None:
    big = b"x" * 1_000_000
    commands = [pack(b"ECHO", big), pack(b"NO-SUCH"), pack(b"ECHO", b"")]
    first, error, last = await transport.ask(b"".join(commands), 3, soon())
    assert (first, last) == (big, b"")
    assert isinstance(error, ResponseError)
    assert transport.is_open


@pytest.mark.redis
async def test_replies_have_the_shape_that_the_server_gives_them(transport: Transport) -> None:
    commands = [
        pack(b"XADD", b"{shape}", b"5-1", b"field", b"value"),
        pack(b"XREAD", b"STREAMS", b"{shape}", b"0"),
        pack(b"XINFO", b"GROUPS", b"{shape}"),
        pack(b"MULTI"),
        pack(b"INCR", b"{shape}n"),
        pack(b"INCR", b"{shape}"),
        pack(b"EXEC"),
        pack(b"GET", b"{shape}absent"),
        pack(b"DEL", b"{shape}", b"{shape}n"),
    ]
    replies = await transport.ask(b"".join(commands), len(commands), soon())
    *_, executed, absent, deleted = replies
    assert replies[:6] == [
        b"5-1",
        [[b"{shape}", [[b"5-1", [b"field", b"value"]]]]],
        [],
        b"OK",
        b"QUEUED",
        b"QUEUED",
    ]
    assert executed[0] == 1
    assert isinstance(executed[1], ResponseError)
    assert (absent, deleted) == (None, 2)


@pytest.mark.redis
async def test_a_cancelled_caller_leaves_no_reply_to_the_next(
    transport_class: type[Transport], address: dict[str, Any]
) -> None:
    idle: asyncio.Queue[Transport] = asyncio.Queue()
    transport = await transport_class.open(Connection, address, on_idle=idle.put_nowait)
    answer = transport.ask(pack(b"ECHO", b"first"), 1, soon())
    answer.cancel()
    assert await asyncio.wait_for(idle.get(), 30) is transport
    assert await transport.ask(pack(b"ECHO", b"second"), 1, soon()) == [b"second"]
    await transport.aclose(1)


@pytest.mark.redis
async def test_a_late_reply_closes_the_connection(
    transport_class: type[Transport], server_url: str
) -> None:
    lost: list[Transport] = []
    async with Proxy(urlsplit(server_url).port or 6379) as proxy:
        at_proxy = settings(urlsplit(proxy.url).port)
        transport = await transport_class.open(Connection, at_proxy, on_lost=lost.append)
        proxy.answers.clear()
        with pytest.raises(TimeoutError):
            await transport.ask(pack(b"PING"), 1, asyncio.get_running_loop().time() + 0.05)
        assert not transport.is_open
        assert lost == [transport]
        with pytest.raises(ConnectionError):
            await transport.ask(pack(b"PING"), 1, soon())
        await transport.aclose(1)


@pytest.mark.redis
async def test_closing_fails_the_exchange_in_progress(transport: Transport) -> None:
    answer = transport.ask(pack(b"BLPOP", b"nothing-here", b"5"), 1, soon())
    await asyncio.sleep(0)
    await transport.aclose(1)
    with pytest.raises(ConnectionError):
        await answer


@pytest.mark.redis
async def test_a_connection_that_the_server_closes_fails_the_exchange_in_progress(
    transport: Transport, address: dict[str, Any]
) -> None:
    (number,) = await transport.ask(pack(b"CLIENT", b"ID"), 1, soon())
    answer = transport.ask(pack(b"BLPOP", b"nothing-here", b"5"), 1, soon())
    other = await FastTransport.open(Connection, address)
    assert await other.ask(pack(b"CLIENT", b"KILL", b"ID", b"%d" % number), 1, soon()) == [1]
    with pytest.raises(ConnectionError):
        await answer
    assert not transport.is_open
    await other.aclose(1)


@pytest.mark.redis
async def test_a_reply_without_a_request_closes_the_connection(fast: FastTransport) -> None:
    fast.data_received(b"+HELLO\r\n")
    assert not fast.is_open


@pytest.mark.redis
async def test_a_malformed_reply_closes_the_connection(fast: FastTransport) -> None:
    answer = fast.ask(pack(b"PING"), 1, soon())
    fast.data_received(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(RedisError):
        await answer
    assert not fast.is_open


@pytest.mark.redis
async def test_a_lost_connection_fails_the_exchange_in_progress(fast: FastTransport) -> None:
    answer = fast.ask(pack(b"BLPOP", b"nothing-here", b"5"), 1, soon())
    fast.connection_lost(OSError("reset"))
    with pytest.raises(ConnectionError, match="reset"):
        await answer


@pytest.fixture
def choice() -> Iterator[None]:
    """Forget the choice that was made for this process."""
    compat.transport_for.cache_clear()
    yield
    compat.transport_for.cache_clear()


@pytest.mark.usefixtures("choice")
def test_the_installed_release_has_the_private_parts() -> None:
    check_parts(compat.private_parts(), distribution="anymq")
    assert compat.transport_for("fast") is FastTransport
    assert compat.transport_for("plain") is PlainTransport


def _moved() -> Any:
    raise ImportError("cannot import name 'BaseParser'", name="redis._parsers.base")


@pytest.mark.redis
@pytest.mark.usefixtures("choice")
@pytest.mark.parametrize(
    ("parts", "missing"),
    [(lambda: {Connection: ("_moved",)}, "Connection has no _moved"), (_moved, "'BaseParser'")],
)
async def test_a_release_without_a_private_part_is_used_by_its_public_ones(
    server_url: str,
    parts: Callable[[], Any],
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(compat, "private_parts", parts)
    with caplog.at_level(logging.WARNING, "anymq.redis"):
        for _ in range(2):
            async with anymq.connect(server_url) as broker:
                await broker.ping()
    assert compat.transport_for("fast") is PlainTransport
    (warning,) = [record.message for record in caplog.records if "does not fit" in record.message]
    assert missing in warning
    assert "run: pip install 'redis[hiredis]" in warning


@pytest.mark.parametrize("client", ["", "slow", "Fast"])
async def test_another_client_is_refused(client: str) -> None:
    with pytest.raises(anymq.InvalidURL, match="client"):
        await anymq.connect(f"redis://127.0.0.1:1?client={client}")
