"""`Connection`: whether the broker of an app answers."""

from __future__ import annotations

import asyncio

from ..broker import Broker
from ..errors import text_of
from ..logs import shown
from ..tasks import fault
from .refreshed import Refreshed
from .report import BrokerHealth

PING_AGE = 2.0
"""Seconds for which the answer to a ping is believed."""
PING_WAIT = 0.4
"""Seconds that a caller waits for the answer: less than the second that a probe has."""
PING_LATE = 5.0
"""Seconds after which a ping without an answer counts as failed."""


class Connection:
    """The connection of `broker`, pinged when it is asked for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._since: float | None = None
        self._ping = Refreshed[str | None](self._error, None, max_age=PING_AGE, wait=PING_WAIT)

    async def health(self) -> BrokerHealth:
        """Return the state of the connection, within `PING_WAIT` seconds."""
        error = await self._ping.get()
        if error is None and self._ping.waiting > PING_LATE:
            error = f"no answer to a ping for {self._ping.waiting:.0f} s"
        now = asyncio.get_running_loop().time()
        if error is None:
            self._since = None
        elif self._since is None:
            self._since = now - self._ping.waiting
        return BrokerHealth(
            name=self._broker.name,
            backend=self._broker.url.scheme,
            connected=error is None,
            error=error,
            error_seconds=None if self._since is None else now - self._since,
        )

    async def aclose(self) -> None:
        """End a ping that runs."""
        await self._ping.aclose()

    async def _error(self) -> str | None:
        """Ping; return the text of the error, or None."""
        try:
            await self._broker.ping()
        except BaseException as raw:
            return shown(text_of(fault(raw, "the ping")))
        return None
