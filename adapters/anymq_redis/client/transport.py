"""`Transport`: one connection to the server, as the rest of the adapter sees it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError

Watch = Callable[[Any], None]
"""A function that is called with a transport when its state changes."""


def ignore(_: Any) -> None:
    """Do nothing: the default of `on_idle` and `on_lost`."""


class Transport(ABC):
    """A connection that carries one exchange at a time, within a deadline.

    An exchange that fails or is late closes the connection. A caller that is cancelled leaves its
    exchange running, so the unread replies never go to another caller. `on_idle` is called when
    the next exchange may begin, `on_lost` once when the connection has closed.
    """

    is_open: bool
    used: float
    """The time of the last reply, by the loop's clock."""

    @classmethod
    @abstractmethod
    async def open(
        cls,
        connection_class: type[AbstractConnection],
        settings: Mapping[str, Any],
        *,
        on_idle: Watch = ignore,
        on_lost: Watch = ignore,
    ) -> Self:
        """Connect by redis-py, which authenticates and selects the database."""

    @abstractmethod
    def ask(self, commands: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        """Send `count` packed commands in one piece, and return a future of their replies.

        Errors of the server stand in the place of the replies. At `deadline`, by the loop's clock,
        the future fails with `TimeoutError`.
        """

    @abstractmethod
    def abort(self, error: Exception | None = None) -> None:
        """Close the connection at once; the exchange in progress fails with `error`."""

    @abstractmethod
    async def aclose(self, timeout: float) -> None:
        """Close the connection, and wait at most `timeout` seconds until its socket is released."""


def closed() -> ConnectionError:
    """Return the error of an exchange over a closed connection."""
    return ConnectionError("the connection was closed")


def late() -> TimeoutError:
    """Return the error of an exchange or a connect that took too long."""
    return TimeoutError("no answer from Redis in time")
