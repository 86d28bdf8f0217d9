"""The consumer process: `python -m benchmarks.chaos.consumer SETTINGS`.

Its journal has `ready`, and `delivered` and `done` around each handler call. With a store it also
has `applied` when the handler takes effect, and `noted` when the store has recorded completion.
Without a group the process is a broadcast subscriber, which records only `heard`. It drains and
ends on SIGINT or SIGTERM, like every `App`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymq import App, Delivery, Handler, Idempotency, Retry, Topic

from .inbox import Inbox, effect
from .journal import Journal, now
from .process import Settings, start

CLOSE_GRACE = 5.0
"""Seconds that closing may take beyond the drain timeout."""


@dataclass(frozen=True, kw_only=True)
class ConsumerSettings(Settings):
    """Settings of a consumer: `work` and timeouts in seconds; `store` is the file of the inbox."""

    group: str | None = "chaos"
    concurrency: int = 8
    work: float = 0.0
    ack_deadline: float = 5.0
    drain_timeout: float = 5.0
    attempts: int = 100
    ordered: bool = False
    store: str | None = None
    marker: str | None = None
    letters: bool = False
    """Whether the topic is a dead-letter topic; each message is then recorded as a `letter`."""


class JournalingApp(App):
    """An app that records its start and the duration of its close."""

    def __init__(self, settings: ConsumerSettings, journal: Journal) -> None:
        super().__init__(settings.url, drain_timeout=settings.drain_timeout)
        self._settings = settings
        self._journal = journal

    async def start(self, **options: Any) -> None:
        """Start as `App.start` does."""
        await super().start(**options)
        self._journal.note("ready")

    async def aclose(self, *, drain_timeout: float | None = None) -> None:
        """Close as `App.aclose` does."""
        started = now()
        await super().aclose(drain_timeout=drain_timeout)
        limit = self._settings.drain_timeout + CLOSE_GRACE
        self._journal.note("call", what="aclose", took=now() - started, limit=limit)


def journaling_idempotency(journal: Journal) -> type[Idempotency]:
    """Return an idempotency middleware that records `noted` after completion, before the ack."""

    class JournalingIdempotency(Idempotency):
        def __call__(self, handler: Handler) -> Handler:
            inner = super().__call__(handler)

            async def noted(delivery: Delivery) -> None:
                await inner(delivery)
                journal.note("noted", id=delivery.message.id)

            return noted

    return JournalingIdempotency


async def consume(settings: ConsumerSettings, journal: Journal) -> None:
    """Consume until a signal ends the app."""
    app = JournalingApp(settings, journal)
    inbox = idempotency = None
    if settings.store is not None:
        inbox = await Inbox.at(Path(settings.store))
        idempotency = journaling_idempotency(journal)(inbox, lease=settings.ack_deadline)

    @app.subscriber(
        Topic[Any](settings.topic, partitions=settings.partitions),
        group=settings.group,
        concurrency=settings.concurrency,
        ack_deadline=settings.ack_deadline,
        retry=Retry(attempts=settings.attempts, marker=settings.marker or None),
        ordered=settings.ordered,
        idempotency=idempotency,
    )
    async def handle(body: dict[str, Any], delivery: Delivery) -> None:
        message = {"id": body["id"], "key": body["key"], "number": body["number"]}
        if settings.letters:
            journal.note("letter", **message, headers=dict(delivery.message.headers))
            return
        if settings.group is None:
            journal.note("heard", **message)
            await asyncio.sleep(settings.work)
            return
        journal.note(
            "delivered", **message, attempt=delivery.attempt, due=body["due"], time=time.time()
        )
        if body.get("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if settings.work:
                await asyncio.sleep(settings.work)
            if inbox is not None:
                journal.note("applied", **message)
                effect.set(body["id"])
        finally:
            journal.note("done", **message)

    watching = asyncio.create_task(_watch_memory(journal))
    await app.serve()
    watching.cancel()
    if inbox is not None:
        await inbox.aclose()


async def _watch_memory(journal: Journal) -> None:
    while True:
        journal.note("rss", bytes=_resident())
        await asyncio.sleep(0.5)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    start(ConsumerSettings, consume)
