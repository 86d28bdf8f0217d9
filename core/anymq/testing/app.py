"""`TestBroker`: run an app on the memory backend, with time in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from ..app import App
from ..broker import Broker
from ..clock import REAL
from ..cloudevents import decode
from ..driver import Received
from ..errors import StateError
from ..message import Message, Receipt
from ..topic import Topic, dead_letter_topic
from .clock import VirtualClock

T = TypeVar("T")


class TestBroker:
    """Run `app` for a test: its real handlers and middleware, on a private memory broker.

    ::

        async with TestBroker(app) as broker:
            await broker.publish("orders", OrderPlaced(...))
            await broker.drain()
            assert broker.published("invoices")[0].key == "o-17"
            await broker.advance(60)              # backoff and delays, in no time

    Nothing is patched: the app is started with another URL. With `url`, the same test runs on a
    real broker, in real time; then `published`, `drain` and `advance` are not available.
    """

    __test__ = False

    def __init__(self, app: App, *, url: str | None = None) -> None:
        self._app = app
        self._url = url
        self._clock = None if url else VirtualClock()

    async def __aenter__(self) -> Self:
        await self._app.start(url=self._url or "memory://", clock=self._clock or REAL)
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = asyncio.ensure_future(self._app.aclose())
        while self._clock is not None and not closing.done():
            await self._clock.advance(self._clock.poll)
        await closing

    @property
    def broker(self) -> Broker:
        """The broker the app runs on."""
        return self._app.broker

    async def publish(self, topic: str | Topic[T], payload: T, **options: Any) -> Receipt:
        """Publish as another service would; as `Broker.publish`."""
        return await self.broker.publish(topic, payload, **options)

    async def drain(self, timeout: float = 10.0) -> None:
        """Return when every handler has handled what it can handle now.

        What waits for a retry stays: `advance` the time for it. Raises `TimeoutError` after
        `timeout` real seconds.
        """
        clock = self._virtual()
        async with asyncio.timeout(timeout):
            while True:
                await clock.settle()
                if not self._busy(clock.monotonic()):
                    return
                await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` of the app's time pass, then `drain`."""
        await self._virtual().advance(seconds)
        await self.drain()

    def published(self, topic: str) -> Sequence[Message]:
        """Return the messages on `topic`, oldest first."""
        self._virtual()
        log = self.broker.native.logs.get(topic)
        binding = self.broker.driver.binding
        return [
            decode(
                Received(
                    stored.record.body,
                    stored.record.headers,
                    position=str(stored.sequence),
                    token=None,
                    key=stored.record.key,
                ),
                binding,
                topic,
            )
            for stored in (log.records if log else ())
        ]

    def dead_letters(self, topic: str, *, group: str) -> Sequence[Message]:
        """Return the dead letters of `group` on `topic`."""
        return self.published(dead_letter_topic(topic, group))

    def _busy(self, now: float) -> bool:
        paused = {
            f"{item.topic}.{item.group}": len(item._buffer)  # pyright: ignore[reportPrivateUsage]
            for item in self._app.subscriptions
            if item.paused
        }
        running = -self._virtual().sleeping - sum(paused.values())
        for log in self.broker.native.logs.values():
            for name, group in log.groups.items():
                if not group.members:
                    continue
                fetching = name not in paused
                if fetching and group.cursor < len(log.records):
                    return True
                running += sum(
                    out.owner is not None or (fetching and out.due <= now)
                    for out in group.out.values()
                )
        return running > 0

    def _virtual(self) -> VirtualClock:
        if self._clock is None:
            raise StateError("this needs the memory backend: do not pass a url")
        return self._clock
