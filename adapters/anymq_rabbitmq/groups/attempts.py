"""`Attempts`: what a group's queues cannot count, remembered beside them.

The server counts what it has sent to a consumer; of which messages a handler has begun it does not
know. And a message of an ordered group that failed keeps its place in its queue. Neither of the two
ways to have the server count it leaves it there: what is given back and delivered again stands,
should its consumer die, behind all that the consumer was delivered before; and a copy goes to the
end. So both are written to a stream of the group. Only who receives what was delivered before reads
that stream.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiormq.exceptions import ChannelNotFoundEntity

from anymq.driver import Due

from . import convert, topology
from .consumer import Delivery
from .link import Link
from .log import Log
from .publisher import Publisher

ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "stream",
    "x-max-length-bytes": 16_000_000,
    "x-stream-max-segment-size-bytes": 4_000_000,
}


QUEUE = -1
"""`Note.counted` where the note is of a queue of the group's history: it has been read to its end,
or with an `attempt` of 0 is being filled."""


class Note(NamedTuple):
    """The message at `position` shall show `attempt` next; 0 means that it is settled.

    `counted` is for older versions: what the queue says of earlier deliveries. `due`, where it
    waits, is a `driver.Due`.
    """

    position: str
    attempt: int
    counted: int
    due: Sequence[float] | None = None


class Attempts:
    """Writes the notes of one member, and reads those of all."""

    def __init__(self, stream: str, link: Link, publisher: Publisher) -> None:
        self._stream = stream
        self._link = link
        self._publisher = publisher
        self._made = False
        self._next: int | None = None
        self._notes: dict[str, Note] = {}
        self._ended: set[str] = set()

    async def write(self, notes: Sequence[Note]) -> None:
        """Return when these are durable."""
        if not self._made:
            await topology.ensure_queue(self._link, self._stream, ARGUMENTS)
            self._made = True
        await self._publisher.publish_all(
            [convert.message_to(self._stream, json.dumps(note).encode()) for note in notes]
        )
        self._learn(notes)

    async def end(self, queue: str) -> None:
        """Note that nothing is left in `queue`, before it is deleted.

        A server that is killed while it deletes a quorum queue has its name again afterwards, and
        nothing behind it: a consumer of it waits for ever.
        """
        await self.write([Note(queue, 1, QUEUE)])

    async def has_ended(self, queue: str) -> bool:
        """Whether nothing is left in `queue`, whatever the server says of it."""
        await self.read()
        return queue in self._ended

    async def begin(self, queues: Sequence[str]) -> None:
        """Forget that earlier queues of these names have ended."""
        if await topology.exists(self._link, self._stream):
            await self.write([Note(queue, 0, QUEUE) for queue in queues])

    async def read(self) -> None:
        """Learn what was written up to now."""
        place = "first" if self._next is None else self._next
        log = Log(self._stream, self._link, self._publisher)
        try:
            async for deliveries, behind in log.read(place):
                self._learn([_note(one) for one in deliveries])
                self._next = behind
        except ChannelNotFoundEntity:  # Nothing has been noted yet.
            self._made, self._next = False, None

    def shown(self, position: str) -> int | None:
        """The attempt that a delivery shows; None if nothing is noted of it."""
        note = self._notes.get(position)
        return None if note is None else note.attempt

    @property
    def noted(self) -> bool:
        """Whether anything is noted."""
        return bool(self._notes)

    def due(self, position: str) -> Due | None:
        """When the message is due again; None if nothing is noted of that."""
        note = self._notes.get(position)
        return None if note is None or note.due is None else Due(*note.due)

    def knows(self, position: str) -> bool:
        """Whether something is noted of this message."""
        return position in self._notes

    def _learn(self, notes: Sequence[Note]) -> None:
        for note in notes:
            if note.counted == QUEUE:
                (self._ended.add if note.attempt else self._ended.discard)(note.position)
            elif note.attempt:
                self._notes[note.position] = note
            else:
                self._notes.pop(note.position, None)


def _note(delivery: Delivery) -> Note:
    return Note(*json.loads(delivery.body))
