"""`AppReporter`: the health and the metrics of one app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..broker import Broker
from ..consuming.subscription import Subscription
from .connection import Connection
from .lag import Lag, Lags
from .metrics import exposition, metrics
from .report import Health, State


class Snapshot(NamedTuple):
    """The parts of an app at one moment."""

    state: State
    broker: Broker | None
    subscriptions: Sequence[Subscription]


class AppReporter:
    """Reports of one app. Each takes less than a second, whatever the broker does."""

    def __init__(
        self, *, name: str | None, version: str | None, look: Callable[[], Snapshot]
    ) -> None:
        self._name = name
        self._version = version
        self._look = look
        self._broker: Broker | None = None
        self._connection: Connection | None = None
        self._lags: Lags | None = None

    async def health(self) -> Health:
        """Return the report, after a ping of the broker if the last one is over 2 s old."""
        connection = await self._of(self._look())
        broker = None if connection is None else await connection.health()
        now = self._look()
        return Health(
            name=self._name,
            version=self._version,
            state=now.state,
            broker=None if now.broker is None else broker,
            subscriptions=tuple(item.health() for item in now.subscriptions),
        )

    async def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        health = await self.health()
        lags: Sequence[Lag] = ()
        if health.state == "running" and self._lags is not None:
            lags = await self._lags.get()
        return exposition(metrics(health, lags))

    async def aclose(self) -> None:
        """End the calls to the broker; a later report begins anew."""
        for part in (self._connection, self._lags):
            if part is not None:
                await part.aclose()
        self._broker = self._connection = self._lags = None

    async def _of(self, now: Snapshot) -> Connection | None:
        """Return the connection of the app as it is now."""
        if now.broker is not self._broker:
            await self.aclose()
        if now.broker is None:
            return None
        if self._connection is None or self._lags is None:
            self._broker, self._connection = now.broker, Connection(now.broker)
            groups = [(item.topic, item.group) for item in now.subscriptions]
            named = [(topic, group) for topic, group in groups if group is not None]
            self._lags = Lags(now.broker, named)
        return self._connection
