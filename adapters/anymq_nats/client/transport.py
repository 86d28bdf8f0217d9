"""`RawClient`: the interface of both clients, as the rest of the adapter uses them."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import nats.errors
from nats.aio.client import Client

Sink = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Receives subject, reply, body and header block of a message. It must not block."""


class Setup(NamedTuple):
    """Arguments of a client."""

    encrypt: bool
    """Whether the connection must be encrypted."""
    context: Callable[[], ssl.SSLContext]
    """Returns the TLS context; called once a connection is encrypted."""
    on_lost: Callable[[Exception], None]
    """Called when the connection breaks."""


class RawClient(Client, ABC):
    """A nats-py client that takes commands as bytes and gives messages to sinks."""

    delivers_late: ClassVar[bool] = False
    """Whether messages wait in nats-py for a turn of the event loop before they reach a sink."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._setup = setup

    async def open(self, servers: list[str], **settings: Any) -> None:
        """Connect to one of `servers`; `settings` are arguments of `Client.connect`."""
        await self.connect(servers, **settings)

    @property
    def server_info(self) -> Mapping[str, Any]:
        """The server's INFO; empty if the client cannot read it."""
        return {}

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send `data`, PUB and HPUB commands, after everything written before.

        Raises if there is no connection. Nothing is buffered for a reconnect, because it might be
        sent long after its sender has given up.
        """

    @abstractmethod
    def write_ping(self, data: bytes) -> asyncio.Future[bool]:
        """Send `data`; the future is done when the server has read it."""

    @abstractmethod
    async def attach(self, subject: str, sink: Sink) -> int:
        """Subscribe `sink` to `subject` and return the number of the subscription.

        Later writes do not overtake the subscription, and nats-py renews it on reconnect.
        """

    @abstractmethod
    def mute(self, number: int) -> None:
        """Unsubscribe at the server. Messages that it has sent already still reach the sink."""

    @abstractmethod
    def detach(self, number: int) -> None:
        """Remove a muted subscription; messages still on their way are dropped."""

    @abstractmethod
    def abort(self) -> None:
        """Break the connection at once, even if the server reads nothing."""

    async def fail(self) -> None:
        """Give the connection up and reconnect."""
        await self.force_reconnect()

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come from the server for too long."""
        return False

    @property
    def is_stuck(self) -> bool:
        """Whether the client is disconnected and no task reconnects it."""
        return False

    def check_connected(self) -> None:
        """Raise unless the client is connected."""
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if not self.is_connected:
            raise nats.errors.ConnectionReconnectingError


ClientFactory = Callable[[Setup], RawClient]
