"""`Lags`: the lag of an app's groups, for metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..broker import Broker
from ..errors import AnymqError, text_of
from ..logs import logger
from .refreshed import Refreshed

log = logger("anymq")

LAG_AGE = 10.0
"""Seconds for which a lag is believed."""
LAG_WAIT = 0.4
"""Seconds that a caller waits for new lags."""
DESCRIBE_SECONDS = 10.0
"""Seconds that the broker has to describe all groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """The lag of one group, see `GroupInfo`."""

    topic: str
    group: str
    messages: int | None
    seconds: float | None


class Lags:
    """The lags of `groups`, pairs of topic and group, asked for when a caller wants them."""

    def __init__(self, broker: Broker, groups: Sequence[tuple[str, str]]) -> None:
        self._broker = broker
        self._groups = groups
        none: Sequence[Lag] = ()
        self._lags = Refreshed(self._described, none, max_age=LAG_AGE, wait=LAG_WAIT)

    async def get(self) -> Sequence[Lag]:
        """Return the lags, within `LAG_WAIT` seconds; without those that are not known."""
        return await self._lags.get()

    async def aclose(self) -> None:
        """End the calls that run."""
        await self._lags.aclose()

    async def _described(self) -> Sequence[Lag]:
        lags: list[Lag] = []
        try:
            async with asyncio.timeout(DESCRIBE_SECONDS):
                for topic, group in self._groups:
                    if (lag := await self._described_group(topic, group)) is not None:
                        lags.append(lag)
        except TimeoutError:
            log.debug("the lags were not known within %g s", DESCRIBE_SECONDS)
        return lags

    async def _described_group(self, topic: str, group: str) -> Lag | None:
        try:
            info = await self._broker.admin.describe(topic, group)
        except AnymqError as error:
            log.debug("the lag of %s (group %s) is unknown: %s", topic, group, text_of(error))
            return None
        return Lag(topic=topic, group=group, messages=info.lag, seconds=info.lag_seconds)
