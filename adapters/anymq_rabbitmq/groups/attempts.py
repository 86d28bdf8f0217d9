"""`Attempts`: a stream that notes the attempts of messages, which queues cannot count.

The server counts the messages that it has sent to a consumer, not those that a handler has started.
A failed message of an ordered group must keep its position in the queue, and both ways to have the
server count it lose that. A message that is returned and delivered again comes, if its consumer
dies, after all messages that the consumer was delivered before. A copy comes last.

So both counts are written to a stream of the group. Only a member that receives redelivered
messages reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import Due

from .. import messages
from ..client.fetcher import Delivery
from ..client.protocol import ensure_queue, queue_exists
from ..connection import Connection
from ..positions import Log
from ..publisher import Publisher

ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 16_000_000,
    "x-stream-max-segment-size-bytes": 4_000_000,
}
OF_HISTORY = -1
"""`Note.counted` of a note about a history queue of the group. `Note.attempt` is 1 if the queue has
been read to its end, 0 if it is being filled."""


class Note(NamedTuple):
    """The next delivery of the message at `position` shows `attempt`; 0 means that it is settled.

    `counted` is for older versions: the queue's count of earlier deliveries. `due`, for a message
    that waits, is a `driver.Due`.
    """

    position: str
    attempt: int
    counted: int
    due: Sequence[float] | None = None


class Attempts:
    """Writes the notes of one member, and reads those of all members."""

    def __init__(self, stream: str, connection: Connection, publisher: Publisher) -> None:
        self._stream = stream
        self._connection = connection
        self._publisher = publisher
        self._made = False
        self._next: int | None = None
        self._notes: dict[str, Note] = {}
        self._read_histories: set[str] = set()

    async def write(self, notes: Sequence[Note]) -> None:
        """Return when `notes` are durable."""
        if not self._made:
            await ensure_queue(self._connection, self._stream, ARGUMENTS)
            self._made = True
        await self._publisher.publish_all(
            [messages.internal_message(self._stream, json.dumps(note).encode()) for note in notes]
        )
        self._learn(notes)

    async def end_history(self, queue: str) -> None:
        """Note that the history `queue` has been read to its end, before it is deleted.

        If a server is killed while it deletes a quorum queue, the queue's name exists afterwards
        with nothing behind it: a consumer waits indefinitely.
        """
        await self.write([Note(queue, 1, OF_HISTORY)])

    async def has_ended(self, queue: str) -> bool:
        """Whether the history `queue` has been read to its end, even if the server lists it."""
        await self.read()
        return queue in self._read_histories

    async def begin_histories(self, queues: Sequence[str]) -> None:
        """Note that these history queues are new, whatever was noted of earlier ones."""
        if await queue_exists(self._connection, self._stream):
            await self.write([Note(queue, 0, OF_HISTORY) for queue in queues])

    async def read(self) -> None:
        """Learn all notes written up to now."""
        begin = "first" if self._next is None else self._next
        log = Log(self._stream, self._connection, self._publisher)
        try:
            async for deliveries, after in log.read(begin):
                self._learn([_note(one) for one in deliveries])
                self._next = after
        except ChannelNotFoundEntity:  # Nothing has been noted yet.
            self._made, self._next = False, None

    def shown(self, position: str) -> int | None:
        """Return the attempt that the next delivery shows; None without a note."""
        note = self._notes.get(position)
        return None if note is None else note.attempt

    @property
    def noted(self) -> bool:
        """Whether there is any note."""
        return bool(self._notes)

    def due(self, position: str) -> Due | None:
        """Return the due time of the message; None without one."""
        note = self._notes.get(position)
        return None if note is None or note.due is None else Due(*note.due)

    def knows(self, position: str) -> bool:
        """Whether there is a note of this message."""
        return position in self._notes

    def _learn(self, notes: Sequence[Note]) -> None:
        histories = self._read_histories
        for note in notes:
            if note.counted == OF_HISTORY:
                (histories.add if note.attempt else histories.discard)(note.position)
            elif note.attempt:
                self._notes[note.position] = note
            else:
                self._notes.pop(note.position, None)


def _note(delivery: Delivery) -> Note:
    return Note(*json.loads(delivery.body))
