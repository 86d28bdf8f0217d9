"""`PlainClient`: the client for releases of nats-py whose private parts have moved.

It uses public methods of nats-py alone, so it is slower than `FastClient`. nats-py trims header
values, replaces bytes that are not UTF-8, and may send what it has buffered after a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from anymq.driver import logger, supervise

from .protocol import lines_of, parse_headers
from .transport import RawClient, Setup, Sink

_log = logger("anymq.nats")

Step = Callable[[], Awaitable[None]]


class PlainClient(RawClient):
    """A client whose writes are queued as steps: one task calls nats-py for each, in order."""

    delivers_late = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._sinks: dict[int, Sink] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._stale: dict[int, int] = {}
        self._count = 0
        self._steps: asyncio.Queue[Step] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None

    async def open(self, servers: list[str], **settings: Any) -> None:
        if self._setup.encrypt:
            settings["tls"] = self._setup.context()
        self._start()
        await self.connect(servers, disconnected_cb=self._disconnected, **settings)

    def write(self, data: bytes) -> None:
        self.check_connected()
        for step in _publications(self, data):
            self._steps.put_nowait(step)

    def write_ping(self, data: bytes) -> asyncio.Future[bool]:
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.write(data)
        self._steps.put_nowait(partial(self._ping, answered))
        return answered

    async def attach(self, subject: str, sink: Sink) -> int:
        self._count += 1
        number = self._count

        async def received(msg: Msg) -> None:
            if self._stale.get(number):  # from a lost connection, so its lease may have ended
                self._stale[number] -= 1
            elif number in self._sinks:
                sink(msg.subject.encode(), msg.reply.encode(), msg.data, _header_block(msg))

        self._sinks[number] = sink
        # Limits of 0 are none: above a limit nats-py would drop messages.
        self._subscriptions[number] = await self.subscribe(
            subject, cb=received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        return number

    def mute(self, number: int) -> None:
        self._steps.put_nowait(partial(self._drain, number))

    def detach(self, number: int) -> None:
        self._sinks.pop(number, None)
        self._steps.put_nowait(partial(self._unsubscribe, number))

    def abort(self) -> None:
        if self._sender is not None:
            self._sender.cancel()

    def _start(self) -> None:
        self._sender = supervise(self._send(self._steps), name="anymq-nats-send")

    async def _send(self, steps: asyncio.Queue[Step]) -> None:
        while steps is self._steps:
            try:
                await (await steps.get())()
            except (nats.errors.Error, OSError) as error:
                # The caller waits for the server's answer, so it gets a timeout.
                _log.debug("command to the NATS server failed: %r", error)

    async def _ping(self, answered: asyncio.Future[bool]) -> None:
        """Complete `answered` when the server has read all earlier commands."""
        try:
            buffered = True
            while buffered:  # nats-py sends a PING ahead of its buffer
                buffered = self.pending_data_size > 0
                await self.flush()
        except nats.errors.FlushTimeoutError:
            await self.force_reconnect()  # a late PONG would end nats-py's reading task
            raise
        if not answered.done():
            answered.set_result(True)

    async def _drain(self, number: int) -> None:
        if self.is_connected and number in self._subscriptions:
            await self._subscriptions[number].drain()  # type: ignore[no-untyped-call]

    async def _unsubscribe(self, number: int) -> None:
        if (subscription := self._subscriptions.pop(number, None)) is not None:
            await subscription.unsubscribe()

    async def _disconnected(self) -> None:
        """Discard all steps and messages of the connection, because their callers repeat them."""
        self.abort()
        self._stale = {number: each.pending_msgs for number, each in self._subscriptions.items()}
        self._steps = asyncio.Queue()
        for number in self._subscriptions.keys() - self._sinks.keys():
            self._steps.put_nowait(partial(self._unsubscribe, number))
        if not self.is_closed:
            self._start()
        self._setup.on_lost(nats.errors.ConnectionReconnectingError())


def _publications(client: PlainClient, data: bytes) -> Iterator[Step]:
    """Yield the call of `Client.publish` for each PUB and HPUB command in `data`."""
    at = 0
    while at < len(data):
        line = data.index(b"\r\n", at)
        command, subject, *rest = data[at:line].decode().split()
        begin = line + 2
        at = begin + int(rest.pop()) + 2
        body = begin + int(rest.pop()) if command == "HPUB" else begin
        headers = parse_headers(data[begin:body]) if body > begin else None
        yield partial(client.publish, subject, data[body : at - 2], "".join(rest), headers)


def _header_block(msg: Msg) -> bytes | None:
    """Return the header block of `msg`, with the server's status line if it has one."""
    headers, status = dict(msg.headers or {}), ""
    if not msg.reply and "Status" in headers:
        status = f" {headers.pop('Status')} {headers.pop('Description', '')}"
    return f"NATS/1.0{status}\r\n{lines_of(headers)}\r\n".encode() if msg.headers else None
