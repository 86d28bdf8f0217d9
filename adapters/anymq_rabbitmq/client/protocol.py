"""Requests that name an exchange, for names up to the server's limit of 255 bytes.

The client library's own refuse a name over 127 characters.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from aiormq import Channel
from pamqp import commands

Reply = Coroutine[Any, Any, Any]


class _Declare(commands.Exchange.Declare):
    def validate(self) -> None:
        """Left to the server."""


class _Delete(commands.Exchange.Delete):
    def validate(self) -> None:
        """Left to the server."""


class _Bind(commands.Exchange.Bind):
    def validate(self) -> None:
        """Left to the server."""


class _QueueBind(commands.Queue.Bind):
    def validate(self) -> None:
        """Left to the server."""


def declare_exchange(
    channel: Channel, name: str, kind: str, arguments: dict[str, Any] | None = None
) -> Reply:
    """Make a durable exchange."""
    request = _Declare(exchange=name, exchange_type=kind, durable=True, arguments=arguments)
    return channel.rpc(request)


def find_exchange(channel: Channel, name: str) -> Reply:
    """Raise `ChannelNotFoundEntity` unless there is an exchange of this name."""
    return channel.rpc(_Declare(exchange=name, passive=True))


def delete_exchange(channel: Channel, name: str) -> Reply:
    """Delete an exchange; fine if it is not there."""
    return channel.rpc(_Delete(exchange=name))


def bind_exchange(channel: Channel, to: str, source: str, key: str) -> Reply:
    """Let the exchange `to` have what is published to `source` with a matching routing key."""
    return channel.rpc(_Bind(destination=to, source=source, routing_key=key))


def bind_queue(channel: Channel, queue: str, exchange: str, key: str = "") -> Reply:
    """Let `queue` have what is published to `exchange` with a matching routing key."""
    return channel.rpc(_QueueBind(queue=queue, exchange=exchange, routing_key=key))
