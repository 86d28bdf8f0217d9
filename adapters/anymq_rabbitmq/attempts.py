"""`Attempts`: the failed attempts of an ordered group's messages, remembered beside its queues.

A message that failed keeps its place in its queue. Neither of the two ways to have the server count
it leaves it there: what is given back and delivered again stands, should its consumer die, behind
all that the consumer was delivered before; and a copy goes to the end. So it stays unsettled, and
its attempts are written to a stream of the group. Only who receives what was delivered before reads
that stream: whoever owns the partition after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from anymq.driver import Due

from . import convert
from .consumer import Delivery
from .link import Link
from .log import Log
from .publisher import Publisher


class Note(NamedTuple):
    """The message at `position` shall show `attempt` next; `counted` is what the queue says of its
    earlier deliveries now. An attempt of 0 means that the message is settled. `due`, where it
    waits, is a `driver.Due`."""

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
        self._next: int | None = None
        self._notes: dict[str, Note] = {}

    async def write(self, notes: Sequence[Note]) -> None:
        """Return when these are durable."""
        await self._publisher.publish_all(
            [convert.message_to(self._stream, json.dumps(note).encode()) for note in notes]
        )
        self._learn(notes)

    async def read(self) -> None:
        """Learn what was written up to now."""
        place = "first" if self._next is None else self._next
        async for deliveries, behind in Log(self._stream, self._link, self._publisher).read(place):
            self._learn([_note(one) for one in deliveries])
            self._next = behind

    def shown(self, position: str, counted: int) -> int | None:
        """The attempt that a delivery shows; None if nothing is noted of it.

        The delivery after the note shows what that says, and each further one counts: those were
        lost with their members.
        """
        note = self._notes.get(position)
        return None if note is None else note.attempt + max(0, counted - note.counted - 1)

    def due(self, position: str) -> Due | None:
        """When the message is due again; None if nothing is noted of that."""
        note = self._notes.get(position)
        return None if note is None or note.due is None else Due(*note.due)

    def knows(self, position: str) -> bool:
        """Whether something is noted of this message."""
        return position in self._notes

    def _learn(self, notes: Sequence[Note]) -> None:
        for note in notes:
            if note.attempt:
                self._notes[note.position] = note
            else:
                self._notes.pop(note.position, None)


def _note(delivery: Delivery) -> Note:
    return Note(*json.loads(delivery.body))
