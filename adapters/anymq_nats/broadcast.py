"""A reader of its own: every message of the topic, in order, to this subscription alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import nats.js.errors

from anymq.driver import Nack, Received, Source, SourceLost, Start

from . import wire
from .link import Link, Watcher
from .pull import Pull, Raw
from .received import received
from .topology import Stream

# Seconds after which the server forgets a reader that asks for nothing.
_FORGOTTEN = 60.0


class BroadcastSource(Source, Watcher):
    """Reads with an ephemeral consumer that acknowledges nothing.

    The place is remembered here. Whatever happens to the connection or the consumer, another
    consumer is made that begins right after the last message handed out, so none is skipped and
    none repeated.
    """

    def __init__(self, link: Link, stream: Stream) -> None:
        self._link = link
        self._stream = stream
        self._pull: Pull | None = None
        self._name = ""
        self._created = ""
        self._last = 0
        self._delivered = 0
        self._broken = False
        self._closed = False

    async def open(self, start: Start) -> None:
        """Be at the place that `start` names."""
        self._created, newest = await self._look()
        self._last = newest if start == "latest" else 0
        self._link.watch(self)
        await self._begin()

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return ()
        pull = self._pull
        if pull is None or self._broken:
            await self._link.ready(wait)
            pull = await self._begin()
        try:
            taken = await pull.take(limit, wait)
        except SourceLost:
            self._broken = True  # forgotten while we were away, or deleted: begin another
            return ()
        return self._continuous(taken)

    def _continuous(self, taken: Sequence[Raw]) -> list[Received]:
        """Keep what follows without a gap; a gap means that some were sent while nobody heard."""
        found: list[Received] = []
        for raw in taken:
            place = wire.place(raw.reply)
            if place.consumer_sequence != self._delivered + 1:
                self._broken = True
                break
            self._delivered = place.consumer_sequence
            self._last = place.stream_sequence
            found.append(received(raw, place, self._link.client))
        return found

    async def _begin(self) -> Pull:
        """Replace the consumer by one that begins after the last message."""
        self._end()
        created, newest = await self._look()
        if created != self._created:
            self._created, self._last = created, 0  # another stream of the same name
        self._last = min(self._last, newest)
        name = f"anymq-{uuid.uuid4().hex}"
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._last + 1,
            "filter_subject": self._stream.subject,
            "inactive_threshold": int(_FORGOTTEN * 1e9),
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": self._stream.name, "config": config, "action": "create"}
        path = f"{self._stream.name}.{name}.{self._stream.subject}"
        pull = Pull(self._link, self._stream.name, name)
        self._broken = False
        try:
            await self._link.api(f"CONSUMER.CREATE.{path}", body)
            await pull.open()
        except BaseException:
            self._broken = True
            pull.close()
            raise
        self._pull, self._name, self._delivered = pull, name, 0
        return pull

    async def _look(self) -> tuple[str, int]:
        """Return when the stream was made and its newest sequence."""
        try:
            info = await self._link.api(f"STREAM.INFO.{self._stream.name}")
        except nats.js.errors.NotFoundError as error:
            raise SourceLost(f"the stream {self._stream.name} is gone") from error
        return str(info["created"]), int(info["state"]["last_seq"])

    def _end(self) -> None:
        """Leave the consumer; the server forgets it by itself if it cannot be told."""
        pull, self._pull = self._pull, None
        if pull is None:
            return
        pull.mute()
        pull.close()
        if self._link.client.is_connected:
            subject = f"{self._link.prefix}.CONSUMER.DELETE.{self._stream.name}.{self._name}"
            self._link.write(f"PUB {subject} 0\r\n\r\n".encode())

    def lost(self, error: Exception) -> None:
        # What was sent to the old connection is not sent again.
        self._broken = True

    async def ack(self, records: Sequence[Received]) -> None:
        """Nothing to settle."""

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Nothing to settle."""

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._link.unwatch(self)
        self._end()
