"""`FlowSearch`: the messages of one flow, found by reading topics without settling anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from ..broker import Broker
from ..driver.specs import Start
from ..errors import NotFound, PermanentError
from ..message import Message
from ..operating.topic_access import Stored
from .survey import concurrently

PROGRESS_MESSAGES = 500
"""Messages of one topic after which progress is told."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A stored message of the flow; `size` is that of its body in bytes."""

    position: str
    partition: int
    message: Message
    size: int


@dataclass
class FlowSearch:
    """A search for the messages whose correlation id is `id`, for message `id`, and its effects.

    The effects of a message are the messages it caused, those they caused, and so on. A message
    that is read before its cause is found by reading the topics once more.
    """

    id: str
    most: int
    """The most messages to find."""
    bodies: bool = False
    """Whether bodies are kept."""
    found: list[Found] = field(default_factory=list)
    read: int = 0
    """The number of messages read; those read once more are not counted again."""
    topics: dict[str, None] = field(default_factory=dict)
    """The topics that are read."""
    unread: dict[str, str] = field(default_factory=dict)
    """By topic the reason for which it cannot be read."""
    complete: bool = True
    """Whether fewer than `most` were found."""
    progress: Callable[[int], object] = lambda count: None
    """Called with the number of messages read since the last call."""
    _causes: set[str] = field(default_factory=set)
    _passed: set[int] = field(default_factory=set)
    """The hashes of the causes of the messages that were passed over."""
    _places: set[tuple[str, int, str]] = field(default_factory=set)

    async def run(
        self, broker: Broker, topics: Iterable[str], *, start: Start, required: Collection[str] = ()
    ) -> None:
        """Read `topics` from `start` to their ends.

        Raises the error of a `required` topic that cannot be read. Others go to `unread`, or are
        passed over if there is no such topic.
        """
        self._causes = {self.id}
        self.topics = dict.fromkeys(topics)
        again = True
        while again and self.complete:
            known, self.read = set(self._causes), 0
            await concurrently(
                lambda topic: self._read(broker, topic, start, required=topic in required),
                list(self.topics),
            )
            again = any(hash(id) in self._passed for id in self._causes - known)

    async def _read(self, broker: Broker, topic: str, start: Start, *, required: bool) -> None:
        try:
            await self._read_to_end(broker, topic, start)
        except PermanentError as error:
            if required:
                raise
            del self.topics[topic]
            if not isinstance(error, NotFound):
                self.unread[topic] = str(error)

    async def _read_to_end(self, broker: Broker, topic: str, start: Start) -> None:
        count = 0
        async with aclosing(broker.admin.browse(topic, start=start)) as stored:
            async for each in stored:
                if not self.complete:
                    return
                self._take(topic, each)
                count += 1
                if count == PROGRESS_MESSAGES:
                    self._tell(count)
                    count = 0
        self._tell(count)

    def _take(self, topic: str, stored: Stored) -> None:
        message = stored.message
        effect = message.id == self.id or message.causation_id in self._causes
        if effect:
            self._causes.add(message.id)
        elif message.correlation_id != self.id:
            if message.causation_id is not None:
                self._passed.add(hash(message.causation_id))
            return
        place = topic, stored.partition, stored.position
        if place in self._places:
            return
        if len(self.found) == self.most:
            self.complete = False
            return
        self._places.add(place)
        body = message.body if self.bodies else b""
        self.found.append(
            Found(
                position=stored.position,
                partition=stored.partition,
                message=replace(message, body=body, original=None),
                size=len(message.body),
            )
        )

    def _tell(self, count: int) -> None:
        self.read += count
        self.progress(count)
