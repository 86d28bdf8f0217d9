"""`Starts`: which attempts of a group's messages are known to have begun."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import nats.errors
import nats.js.errors

from .connection import Link
from .groups import Consumer
from .jetstream.schema import cell_subject, cells_stream
from .outgoing import Outgoing
from .publisher import Publisher
from .topology import purge

_SIDE_BY_SIDE = 50
"""How many the server is asked for at a time."""


class Starts:
    """Notes, by stream sequence, what attempt a message is to show if nothing else is heard of it.

    The server counts deliveries, whether a handler has begun or not. The notes stand in the stream
    of cells, which `make` makes where there is none yet.
    """

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        consumer: Consumer,
        make: Callable[[], Awaitable[None]],
    ) -> None:
        self._link = link
        self._publisher = publisher
        self._consumer = consumer
        self._stream = cells_stream(consumer.stream.name)
        self._make = make
        self._made = False

    async def note(self, attempts: Mapping[str, int]) -> None:
        """Return when these are stored; raises the first failure."""
        if not self._made:
            await self._make()
            self._made = True
        outcomes = await self._publisher.send(
            [
                Outgoing(self._subject(position), uuid.uuid4().hex, str(attempt).encode())
                for position, attempt in attempts.items()
            ]
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._made = False
                raise outcome

    async def look(self, positions: Sequence[str]) -> list[int]:
        """Return what is noted of each, 0 for nothing."""
        found: list[int] = []
        for start in range(0, len(positions), _SIDE_BY_SIDE):
            some = positions[start : start + _SIDE_BY_SIDE]
            found += await asyncio.gather(*[self._get(position) for position in some])
        return found

    async def forget(self, positions: Iterable[str]) -> None:
        """Delete what is noted of these, which are settled."""
        subjects = [self._subject(position) for position in positions]
        try:
            await asyncio.gather(*[purge(self._link, self._stream, one) for one in subjects])
        except (nats.errors.Error, OSError):
            return  # A note that nobody reads any more.

    async def _get(self, position: str) -> int:
        try:
            body = {"last_by_subj": self._subject(position)}
            answer = await self._link.api(f"STREAM.MSG.GET.{self._stream}", body)
        except nats.js.errors.NotFoundError:
            return 0
        text = base64.b64decode(answer["message"].get("data", ""))
        return int(text) if text.isdigit() and len(text) < 10 else 0

    def _subject(self, position: str) -> str:
        return cell_subject(self._consumer.stream.name, self._consumer.name, "starts", position)
