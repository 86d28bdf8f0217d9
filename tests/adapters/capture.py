"""Servers that ask for a login, note what they are sent, and hang up."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pamqp import commands, frame

Login = tuple[str | None, ...]
"""What a client sent: user and password, or the one secret that it has."""
Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Login]]


class Asked:
    """A server on a loopback address, and the logins that clients sent to it."""

    def __init__(self, server: asyncio.Server, logins: list[Login]) -> None:
        self._server = server
        self.logins = logins

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port


@asynccontextmanager
async def asking(ask: Ask, host: str = "127.0.0.1") -> AsyncIterator[Asked]:
    logins: list[Login] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            logins.append(await ask(reader, writer))
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, host, 0) as server:
        yield Asked(server, logins)


async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Login:
    """Return the words of AUTH."""

    async def word() -> str:
        size = int((await reader.readline())[1:])
        return (await reader.readexactly(size + 2))[:-2].decode()

    words = [await word() for _ in range(int((await reader.readline())[1:]))]
    assert words.pop(0) == "AUTH"
    return tuple(words)


async def nats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Login:
    """Return user and password of CONNECT, or its token."""
    info = {"server_id": "x", "version": "2.12.0", "max_payload": 1000, "auth_required": True}
    writer.write(b"INFO " + json.dumps(info | {"headers": True}).encode() + b"\r\n")
    line = await reader.readline()
    assert line.startswith(b"CONNECT ")
    sent = json.loads(line[8:])
    return (sent["auth_token"],) if "auth_token" in sent else (sent["user"], sent["pass"])


async def amqp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Login:
    """Return what SASL PLAIN sends."""
    await reader.readexactly(8)
    start = commands.Connection.Start(mechanisms="PLAIN", locales="en_US", server_properties={})
    writer.write(frame.marshal(start, 0))
    head = await reader.readexactly(7)
    rest = await reader.readexactly(struct.unpack(">I", head[3:])[0] + 1)
    _, _, answer = frame.unmarshal(head + rest)
    assert isinstance(answer, commands.Connection.StartOk)
    return tuple(str(answer.response).split("\0")[1:])


async def kafka(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Login:
    """Return what SASL PLAIN sends."""
    versions, handshake, authenticate = 18, 17, 36
    supported = b"".join(struct.pack(">hhh", key, 0, 0) for key in (versions, 17, authenticate))
    answers = {
        versions: struct.pack(">hi", 0, 3) + supported,
        handshake: struct.pack(">hih", 0, 1, 5) + b"PLAIN",
    }
    while True:
        request = await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])
        key, version, number, client = struct.unpack_from(">hhih", request)
        body = request[10 + client :]
        if key == authenticate:
            return tuple(body[4:].decode().split("\0")[1:])
        if key == handshake and version == 0:
            # The login follows without a header: before Kafka 1.0.
            writer.write(_sized(struct.pack(">i", number) + answers[key]))
            token = await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])
            return tuple(token.decode().split("\0")[1:])
        writer.write(_sized(struct.pack(">i", number) + answers[key]))


def _sized(answer: bytes) -> bytes:
    return struct.pack(">i", len(answer)) + answer


SERVERS: dict[str, Ask] = {"kafka": kafka, "amqp": amqp, "nats": nats, "redis": redis}
"""The servers by scheme."""
