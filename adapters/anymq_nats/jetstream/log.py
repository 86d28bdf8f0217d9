"""Reading a stream in its order, from any place, without settling anything."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import nats.js.errors

from anymq.driver import SourceLost

from ..connection import Link, Watcher
from ..messages import Delivered
from ..positions import starting
from .pending import Pull

# Seconds after which the server forgets a reader that asks for nothing.
_FORGOTTEN = 60.0


class StreamReader(Watcher):
    """Reads `subjects` of one stream with ephemeral consumers that acknowledge nothing.

    The place is remembered here: `last` is the sequence of the message handed out last. Whatever
    happens to the connection or the consumer, another consumer is made that begins right after
    it, so none is skipped and none repeated. `pending` is how many there were behind it then.
    `wake` is set when there may be something to take. `place` is that of an earlier reader, which
    this one goes on for; `skipped` as in `SubscribeSpec`.
    """

    def __init__(
        self,
        link: Link,
        stream: str,
        subjects: Sequence[str],
        *,
        last: int = 0,
        wake: asyncio.Event | None = None,
        place: object = None,
        skipped: Callable[[str, str], None] | None = None,
    ) -> None:
        self._created = ""
        self.last = last
        if isinstance(place, tuple):
            self._created, self.last = place
        self.pending = 0
        self._link = link
        self._stream = stream
        self._subjects = list(subjects)
        self._wake = wake
        self._pull: Pull | None = None
        self._name = ""
        self._skipped = skipped
        self._delivered = 0
        self._broken = False
        link.watch(self)

    @property
    def place(self) -> object:
        """The stream, by when it was made, and the last sequence that was handed out."""
        return self._created, self.last

    async def open(self) -> None:
        """Be ready to take; raises what keeps it from that."""
        await self._begin()

    async def take(self, limit: int, wait: float) -> list[Delivered]:
        """Return what follows, up to `limit`, waiting at most `wait` seconds for the first."""
        pull = self._pull
        if pull is None or self._broken:
            await self._link.ready(wait)
            pull = await self._begin()
        try:
            taken = await pull.take(limit, wait)
        except SourceLost:
            self._broken = True  # forgotten while we were away, or deleted: begin another
            self._signal()
            return []
        return self._continuous(taken)

    async def undelivered(self) -> object:
        """As `Source.undelivered`."""
        if self._pull is None or self._broken:
            return None
        try:
            return await self._pull.undelivered()
        except SourceLost:
            self._broken = True  # the next `take` begins another
            return None

    def _continuous(self, taken: Sequence[Delivered]) -> list[Delivered]:
        """Keep what follows without a gap; a gap means that some were sent while nobody heard."""
        found: list[Delivered] = []
        for delivered in taken:
            place = delivered.place()
            if place.consumer_sequence != self._delivered + 1:
                self._broken = True
                self._signal()
                break
            self._delivered = place.consumer_sequence
            self.last, self.pending = place.stream_sequence, place.pending
            found.append(delivered)
        return found

    async def _begin(self) -> Pull:
        """Replace the consumer by one that begins after the last message."""
        self._end()
        created, oldest, newest = await self._look()
        if self._created and created != self._created:
            self.last = 0  # another stream of the same name
        elif self._created and self._skipped is not None and self.last + 1 < oldest:
            self._skipped(str(self.last), str(oldest) if oldest <= newest else "")
            self.last = oldest - 1
        self._created = created
        self.last = min(self.last, newest)
        name = f"anymq-{uuid.uuid4().hex}"
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "filter_subjects": self._subjects,
            "inactive_threshold": int(_FORGOTTEN * 1e9),
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            **starting(self.last + 1),
        }
        body = {"stream_name": self._stream, "config": config, "action": "create"}
        pull = Pull(self._link, self._stream, name, wake=self._wake)
        self._broken = False
        try:
            info = await self._link.api(f"CONSUMER.CREATE.{self._stream}.{name}", body)
            self.pending = int(info["num_pending"])
            await pull.open()
        except BaseException:
            self._broken = True
            pull.close()
            raise
        self._pull, self._name, self._delivered = pull, name, 0
        return pull

    async def _look(self) -> tuple[str, int, int]:
        """Return when the stream was made, its oldest sequence and its newest."""
        try:
            info = await self._link.api(f"STREAM.INFO.{self._stream}")
        except nats.js.errors.NotFoundError as error:
            raise SourceLost(f"the stream {self._stream} is gone") from error
        state = info["state"]
        return str(info["created"]), int(state["first_seq"]), int(state["last_seq"])

    def _end(self) -> None:
        """Leave the consumer; the server forgets it by itself if it cannot be told."""
        pull, self._pull = self._pull, None
        if pull is None:
            return
        pull.mute()
        pull.close()
        if self._link.client.is_connected:
            subject = f"{self._link.prefix}.CONSUMER.DELETE.{self._stream}.{self._name}"
            self._link.write(f"PUB {subject} 0\r\n\r\n".encode())

    def _signal(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def lost(self, error: Exception) -> None:
        # What was sent to the old connection is not sent again.
        self._broken = True
        self._signal()

    def close(self) -> None:
        """Leave. Calling it twice is harmless."""
        self._link.unwatch(self)
        self._end()
