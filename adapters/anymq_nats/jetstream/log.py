"""A stream as a log: `StreamReader`, and the ephemeral consumers that it reads with."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nats.js.errors

from anymq.driver import SourceLost

from ..client.protocol import publish
from ..connection import Connection, Watcher
from ..messages import Delivered
from .pending import PullRequests

NANO = 1_000_000_000
READ_MESSAGES = 500
"""Messages of one read of `StreamReader`, where a caller reads a topic to its end."""
READ_SECONDS = 2.0
"""Seconds that such a read waits for the first message."""
_READER_INACTIVE_SECONDS = 60.0
_PROBE_INACTIVE_SECONDS = 5.0

Config = dict[str, Any]


def starting(first: int) -> Config:
    """Return the configuration of a consumer that starts at sequence `first`."""
    if first <= 1:
        return {"deliver_policy": "all"}
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": first}


async def probe(connection: Connection, stream: str, config: Mapping[str, Any]) -> Config:
    """Return the server's information on a consumer made with `config`; it delivers nothing."""
    name = f"anymq-{uuid.uuid4().hex}"
    info = await _make_ephemeral(connection, stream, name, config, _PROBE_INACTIVE_SECONDS)
    _delete_ephemeral(connection, stream, name)
    return info


async def _make_ephemeral(
    connection: Connection, stream: str, name: str, config: Mapping[str, Any], inactive: float
) -> Config:
    """Make a consumer that acknowledges nothing.

    The server deletes it after `inactive` seconds without a request.
    """
    wanted = {
        "name": name,
        "ack_policy": "none",
        "inactive_threshold": int(inactive * NANO),
        "mem_storage": True,
        "num_replicas": 1,
        **config,
    }
    body = {"stream_name": stream, "config": wanted, "action": "create"}
    return await connection.api(f"CONSUMER.CREATE.{stream}.{name}", body)


def _delete_ephemeral(connection: Connection, stream: str, name: str) -> None:
    """Delete a consumer without waiting for the answer."""
    subject = f"{connection.prefix}.CONSUMER.DELETE.{stream}.{name}"
    connection.write(publish(subject.encode()))


class StreamReader(Watcher):
    """A reader of `subjects` of one stream, which settles nothing.

    It keeps its position itself: `last` is the sequence of the last message returned, and `pending`
    the number of messages behind it at that time. If the connection breaks or the consumer
    disappears, another consumer starts right after `last`, so no message is skipped or repeated.

    `wake` is set when there may be messages to take. `position` is that of the reader that this one
    replaces. `skipped` is `Listener.skipped`.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subjects: Sequence[str],
        *,
        last: int = 0,
        wake: asyncio.Event | None = None,
        position: object = None,
        skipped: Callable[[str, str], None] | None = None,
    ) -> None:
        self._created = ""
        self.last = last
        if isinstance(position, tuple):
            self._created, self.last = position
        self.pending = 0
        self._connection = connection
        self._stream = stream
        self._subjects = list(subjects)
        self._wake = wake
        self._pull: PullRequests | None = None
        self._name = ""
        self._skipped = skipped
        self._consumer_sequence = 0
        self._broken = False
        connection.watch(self)

    @property
    def position(self) -> object:
        """The creation time of the stream, and the sequence of the last message returned."""
        return self._created, self.last

    async def open(self) -> None:
        """Start a consumer after the last message; raises the error that prevents it."""
        await self._replace_consumer()

    async def take(self, limit: int, wait: float) -> list[Delivered]:
        """Return the next messages, up to `limit`, waiting at most `wait` seconds for the first."""
        pull = self._pull
        if pull is None or self._broken:
            await self._connection.ready(wait)
            pull = await self._replace_consumer()
        try:
            taken = await pull.take(limit, wait)
        except SourceLost:
            self._mark_broken()  # the server has deleted the consumer
            return []
        return self._without_gap(taken)

    async def undelivered(self) -> object:
        """As `Reader.undelivered`."""
        if self._pull is None or self._broken:
            return None
        try:
            return await self._pull.undelivered()
        except SourceLost:
            self._broken = True  # the next `take` starts another consumer
            return None

    def _without_gap(self, taken: Sequence[Delivered]) -> list[Delivered]:
        """Return the messages up to a gap, which means that some were sent to a lost connection."""
        found: list[Delivered] = []
        for delivered in taken:
            info = delivered.info()
            if info.consumer_sequence != self._consumer_sequence + 1:
                self._mark_broken()
                break
            self._consumer_sequence = info.consumer_sequence
            self.last, self.pending = info.stream_sequence, info.pending
            found.append(delivered)
        return found

    async def _replace_consumer(self) -> PullRequests:
        """Replace the consumer by one that starts after the last message."""
        self._drop_consumer()
        await self._find_start()
        name = f"anymq-{uuid.uuid4().hex}"
        config = {"filter_subjects": self._subjects, "max_deliver": 1, **starting(self.last + 1)}
        pull = PullRequests(self._connection, self._stream, name, wake=self._wake)
        self._broken = False
        try:
            info = await _make_ephemeral(
                self._connection, self._stream, name, config, _READER_INACTIVE_SECONDS
            )
            self.pending = int(info["num_pending"])
            await pull.open()
        except BaseException:
            self._broken = True
            pull.close()
            raise
        self._pull, self._name, self._consumer_sequence = pull, name, 0
        return pull

    async def _find_start(self) -> None:
        """Correct `last` if the stream has been made again or has lost messages."""
        try:
            info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        except nats.js.errors.NotFoundError as error:
            raise SourceLost(f"the stream {self._stream} does not exist any more") from error
        created, state = str(info["created"]), info["state"]
        oldest, newest = int(state["first_seq"]), int(state["last_seq"])
        if self._created and created != self._created:
            self.last = 0  # another stream of the same name
        elif self._created and self._skipped is not None and self.last + 1 < oldest:
            self._skipped(str(self.last), str(oldest) if oldest <= newest else "")
            self.last = oldest - 1
        self._created = created
        self.last = min(self.last, newest)

    def _drop_consumer(self) -> None:
        """Close the consumer; the server deletes it after 60 s if the connection is lost."""
        pull, self._pull = self._pull, None
        if pull is None:
            return
        pull.mute()
        pull.close()
        if self._connection.client.is_connected:
            _delete_ephemeral(self._connection, self._stream, self._name)

    def _mark_broken(self) -> None:
        self._broken = True
        if self._wake is not None:
            self._wake.set()

    def lost(self, error: Exception) -> None:
        # The server does not send again what it sent to the lost connection.
        self._mark_broken()

    def close(self) -> None:
        """Close the reader. A second call does nothing."""
        self._connection.unwatch(self)
        self._drop_consumer()
