"""Our reading of what the server sends, against nats-py's own."""

from __future__ import annotations

from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from anymq_nats.client.parser import SinkParser

Heard = list[tuple[Any, ...]]

_STREAM = (
    b"MSG a.b 1 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG a.b 2 reply.1 0\r\n\r\n"
    b"HMSG a.b 1 reply.2 23 28\r\nNATS/1.0\r\nMSG: PING\r\n\r\n12\r\n5\r\n"
    b"+OK\r\n"
    b"HMSG a.b 2 12 12\r\nNATS/1.0\r\n\r\n\r\n"
    b"PONG\r\n"
    b"MSG a.b  1\t  reply.3  2\r\n\r\n\r\n"
    b"-ERR 'Permissions Violation'\r\n"
    b'INFO {"max_payload": 5}\r\n'
    b"MSG last 1 4\r\nPING\r\n"
)


class Client:
    """What nats-py's parser talks to."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    async def _process_msg(self, sid: int, *rest: Any) -> None:
        self._heard.append((b"%d" % sid, *rest))

    async def _process_err(self, error: str) -> None:
        self._heard.append(("error", error))

    async def _process_ping(self) -> None:
        self._heard.append(("ping",))

    async def _process_pong(self) -> None:
        self._heard.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self._heard.append(("info", info))


def never(error: Exception) -> None:
    raise error


def ours(heard: Heard, *sids: bytes) -> SinkParser:
    """A parser with sinks for these."""
    parser = SinkParser(Client(heard), never)
    for sid in sids:
        parser.sinks[sid] = lambda *message, sid=sid: heard.append((sid, *message))
    return parser


async def expected() -> Heard:
    heard: Heard = []
    await Parser(Client(heard)).parse(_STREAM)
    assert len(heard) == 10
    return heard


@pytest.mark.parametrize("sids", [(), (b"1",), (b"2",), (b"1", b"2")])
async def test_all_is_heard_in_its_order_wherever_it_is_cut(sids: tuple[bytes, ...]) -> None:
    wanted = await expected()
    for cut in range(len(_STREAM) + 1):
        heard: Heard = []
        parser = ours(heard, *sids)
        await parser.parse(_STREAM[:cut])
        await parser.parse(_STREAM[cut:])
        assert heard == wanted


@given(st.lists(st.integers(1, 40)))
async def test_all_is_heard_whatever_the_pieces(sizes: list[int]) -> None:
    heard: Heard = []
    parser = ours(heard, b"1", b"2")
    at = 0
    for size in sizes:
        await parser.parse(_STREAM[at : at + size])
        at += size
    await parser.parse(_STREAM[at:])
    assert heard == await expected()


async def test_half_a_message_of_another_connection_is_forgotten() -> None:
    heard: Heard = []
    parser = ours(heard, b"1")
    await parser.parse(b"MSG a 1 100\r\nhalf")
    parser.reset()
    await parser.parse(b"MSG a 1 3\r\nnew\r\n")
    assert heard == [(b"1", b"a", b"", b"new", None)]


async def test_what_is_left_of_an_old_connection_is_not_kept_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: Heard = []
    parser = ours(heard, b"1")

    async def reconnect() -> None:
        parser.reset()

    monkeypatch.setattr(parser.nc, "_process_ping", reconnect)
    await parser.parse(b"PING\r\nMSG a 1 100\r\nhalf")
    await parser.parse(b"MSG a 1 3\r\nnew\r\n")
    assert heard == [(b"1", b"a", b"", b"new", None)]


@pytest.mark.parametrize("line", [b"MSG a\r\n", b"MSG a 1 many\r\n", b"WHAT\r\n", b"\r\n"])
async def test_nonsense_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(nats.errors.ProtocolError):
        await ours([], b"1").parse(line)


async def test_a_sink_that_fails_ends_nothing() -> None:
    errors: list[Exception] = []
    heard: Heard = []
    parser = SinkParser(Client(heard), errors.append)
    parser.sinks[b"1"] = lambda *_: [][0]
    await parser.parse(b"MSG a 1 0\r\n\r\nPING\r\n")
    assert [type(error) for error in errors] == [IndexError]
    assert heard == [("ping",)]
