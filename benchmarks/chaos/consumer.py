"""A process that consumes: `python -m benchmarks.chaos.consumer SETTINGS`.

It notes `ready`, then `delivered` and `done` around each run of its handler; with a store also
`applied`, when that takes effect, and `noted`, once the store knows. Without a group it reads as
broadcast, and notes only what it has `heard`. It drains and ends on SIGINT
or SIGTERM, as every `App` does.
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


@dataclass(frozen=True, kw_only=True)
class ConsumerSettings(Settings):
    """`work`, `ack_deadline` and `drain_timeout` are seconds; `store` is the inbox's file."""

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
    """Whether it reads the dead letters instead: each is noted as a `letter`."""


class NotingApp(App):
    """An app that notes when it has started, and how long it took to close."""

    def __init__(self, settings: ConsumerSettings, journal: Journal) -> None:
        super().__init__(settings.url, drain_timeout=settings.drain_timeout)
        self._settings = settings
        self._journal = journal

    async def start(self, **options: Any) -> None:
        """Start as `App.start` does."""
        await super().start(**options)
        self._journal.note("ready")

    async def aclose(self) -> None:
        """As `App.aclose`."""
        started = now()
        await super().aclose()
        limit = self._settings.drain_timeout + CLOSE_GRACE
        self._journal.note("call", what="aclose", took=now() - started, limit=limit)


def noting(journal: Journal) -> type[Idempotency]:
    """Return the idempotency that says when its store has it: after the note, before the ack."""

    class Noting(Idempotency):
        def __call__(self, handler: Handler) -> Handler:
            inner = super().__call__(handler)

            async def noted(delivery: Delivery) -> None:
                await inner(delivery)
                journal.note("noted", id=delivery.message.id)

            return noted

    return Noting


async def consume(settings: ConsumerSettings, journal: Journal) -> None:
    """The whole life of the process."""
    app = NotingApp(settings, journal)
    options: dict[str, Any] = {"ordered": True} if settings.ordered else {}
    inbox = None
    if settings.store is not None:
        inbox = await Inbox.at(Path(settings.store))
        options["idempotency"] = noting(journal)(inbox, lease=settings.ack_deadline)
    retry: dict[str, Any] = {"marker": settings.marker} if settings.marker else {}

    @app.subscriber(
        Topic[Any](settings.topic, partitions=settings.partitions),
        group=settings.group,
        concurrency=settings.concurrency,
        ack_deadline=settings.ack_deadline,
        retry=Retry(attempts=settings.attempts, **retry),
        **options,
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
