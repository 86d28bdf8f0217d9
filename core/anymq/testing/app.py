"""`TestBroker`: runs an app on the memory backend, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, TypeVar, Unpack

from ..app import App
from ..broker import Broker
from ..driver.clock import REAL
from ..driver.records import Received
from ..errors import NotFound
from ..message import Message, Receipt
from ..publishing.options import PublishOptions
from ..topic import Topic, as_topic, dead_letter_topic
from ..wire.cloudevents import decode
from .clock import VirtualClock
from .real import is_busy, read

T = TypeVar("T")

POLL_SECONDS = 0.2
"""Seconds between two polls of a real broker."""


class TestBroker:
    """An app under test: its real handlers and middleware, on a private memory broker.

    ::

        async with TestBroker(app) as broker:
            await broker.publish("orders", OrderPlaced(...))
            await broker.drain()
            assert broker.published("invoices")[0].key == "o-17"
            await broker.advance(60)              # 60 s of virtual time: backoff, delays

    Nothing is patched; the app is started with another URL. With `url`, the same test runs on a
    real broker, where time is real and `advance(60)` takes a minute. Options come from that URL
    alone, and not from the environment or a file, which are about the broker in production.
    """

    __test__ = False

    def __init__(self, app: App, *, url: str | None = None) -> None:
        self._app = app
        self._url = url
        self._clock = None if url else VirtualClock()

    async def __aenter__(self) -> Self:
        url = self._url or "memory://"
        await self._app.start(url=url, clock=self._clock or REAL, isolated=True)
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

    async def publish(
        self, topic: str | Topic[T], payload: T, **options: Unpack[PublishOptions]
    ) -> Receipt:
        """Publish as another service would. The arguments are those of `Broker.publish`."""
        return await self.broker.publish(topic, payload, **options)

    async def drain(self, timeout: float = 10.0) -> None:
        """Return when the handlers have handled every message that is due.

        A message that waits for a retry stays; `advance` the time for it. Raises `TimeoutError`
        after `timeout` real seconds. On a real broker it polls the statistics of the app's groups.
        For broadcast handlers it only knows of messages that have arrived.
        """
        async with asyncio.timeout(timeout):
            if self._clock is None:
                await self._quiet()
                return
            while True:
                await self._clock.settle()
                if not self._busy(self._clock):
                    return
                await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` of the app's time pass, then `drain`."""
        if self._clock is None:
            await asyncio.sleep(seconds)
        else:
            await self._clock.advance(seconds)
        await self.drain()

    def published(self, topic: str | Topic[Any]) -> Sequence[Message]:
        """Return the messages on `topic`, oldest first.

        Raises `NotFound` for a name that no handler of the app reads and to which nothing was
        published, because it may be misspelt. Pass the `Topic` of one that may be empty.
        """
        name = as_topic(topic).name
        found = self._on(name)
        if found is None and not isinstance(topic, Topic) and name not in self._known():
            raise NotFound(
                f"there is no topic {name!r}: no handler of the app reads it, and nothing was "
                "published to it; pass its Topic if it may stay empty"
            )
        return found or []

    def dead_letters(self, topic: str | Topic[Any], *, group: str | None) -> Sequence[Message]:
        """Return the dead letters of `group` (None: of broadcast) on `topic`, oldest first.

        Raises `NotFound` if there are none and no handler of the app reads the topic for the group.
        """
        name = as_topic(topic).name
        letters = self._on(dead_letter_topic(name, group)) or []
        readers = [(item.topic.name, item.group) for item in self._app.subscribers]
        if not letters and (name, group) not in readers:
            raise NotFound(f"no handler of the app reads {name!r} for the group {group!r}")
        return letters

    def _known(self) -> set[str]:
        """Return the topics that the app reads, and those of their dead letters."""
        readers = self._app.subscribers
        return {item.topic.name for item in readers} | {
            dead_letter_topic(item.topic.name, item.group) for item in readers
        }

    def _on(self, topic: str) -> list[Message] | None:
        """Return the messages on `topic`; None if it does not exist."""
        if self._url is not None and self.broker.url.scheme != "memory":
            try:
                return read(self._url, topic, self._app._names)  # pyright: ignore[reportPrivateUsage]
            except NotFound:
                return None
        log = self.broker.native.logs.get(topic)
        return None if log is None else [self._message(stored, topic) for stored in log.records]

    def _message(self, stored: Any, topic: str) -> Message:
        record, position = stored.record, str(stored.sequence)
        received = Received(
            record.body, record.headers, position=position, token=None, key=record.key
        )
        return decode(received, self.broker.driver.binding, topic)

    async def _quiet(self) -> None:
        """Return when two polls in a row found no work."""
        quiet = 0
        while quiet < 2:
            busy = [await is_busy(self.broker, item) for item in self._app.subscriptions]
            quiet = 0 if any(busy) else quiet + 1
            await asyncio.sleep(POLL_SECONDS)

    def _busy(self, clock: VirtualClock) -> bool:
        paused = {
            f"{item.topic}.{item.group}": item.buffered
            for item in self._app.subscriptions
            if item.paused
        }
        now = clock.now()
        running = -clock.sleeping - sum(paused.values())
        for log in self.broker.native.logs.values():
            for name, group in log.groups.items():
                if not group.members:
                    continue
                fetching = name not in paused
                if fetching and group.cursor < len(log.records):
                    return True
                running += sum(
                    delivery.owner is not None or (fetching and delivery.due <= now)
                    for delivery in group.pending.values()
                )
        return running > 0
