"""`Member`: one consumer of a group, and what it holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from anymq.driver import Received, SubscribeSpec

from ..connection import Commands
from ..messages import RETRY, Place, Token, received
from ..topology import RedisTopic
from . import Script
from .keys import GroupKeys

Tokens = dict[bytes, Token]


class Member:
    """A consumer and its tokens, by stream and entry id.

    The streams are the topic's partitions, and last the group's own with what comes back to it. A
    token that is no longer held is stale: its lease was lost, or it has been settled.
    """

    def __init__(
        self, commands: Commands, spec: SubscribeSpec, topic: RedisTopic, keys: GroupKeys
    ) -> None:
        self.commands = commands
        self.spec = spec
        self.topic = topic
        self.keys = keys
        self.name = spec.member.encode()
        self.streams = (*topic.keys.streams, keys.retry)
        self.all: tuple[int, ...] = (RETRY, *range(topic.partitions))
        self.which = dict(zip(self.streams, (*self.all[1:], RETRY), strict=True))
        self.places = tuple(
            Place(stream, which, b"" if which == RETRY else topic.keys.prefix(which))
            for stream, which in self.which.items()
        )
        self.held: tuple[Tokens, ...] = tuple({} for _ in self.streams)

    def keep(self, which: int, entry: Sequence[Any], count: int, starts: int | None) -> Received:
        """Hold `entry`, delivered `count` times so far, and return it as a message.

        `starts` says of how many of the earlier ones a handler is known to have begun.
        """
        id = entry[0]
        token = self.held[which][id] = Token(id, which, time.monotonic())
        token.starts = starts
        return received(self.places[which], entry, token, count - 1)

    def keep_new(self, which: int, entries: Iterable[Sequence[Any]]) -> list[Received]:
        """As `keep`, of entries that are delivered for the first time."""
        held, place, now = self.held[which], self.places[which], time.monotonic()
        records: list[Received] = []
        for entry in entries:
            id = entry[0]
            token = held[id] = Token(id, which, now)
            records.append(received(place, entry, token, 0))
        return records

    def ours(self, records: Iterable[Received]) -> list[tuple[int, list[Token]]]:
        """Return by stream those tokens of `records` that are not stale, each once."""
        tokens: dict[int, Tokens] = {}
        for record in records:
            token: Token = record.token
            if self.held[token.which].get(token.id) is token:
                tokens.setdefault(token.which, {})[token.id] = token
        return [(which, list(found.values())) for which, found in tokens.items()]

    def let_go(self, which: int, tokens: Iterable[Token]) -> None:
        """These are settled."""
        held = self.held[which]
        for token in tokens:
            if held.get(token.id) is token:
                del held[token.id]

    @contextmanager
    def moving(self, tokens: Sequence[Token]) -> Iterator[None]:
        """Copies of these are on their way: what a claim has brought of them meanwhile is stale."""
        for token in tokens:
            token.leaving = True
        try:
            yield
        finally:
            for token in tokens:
                token.leaving = False

    def is_leaving(self, which: int, id: bytes) -> bool:
        """Whether a copy of what we hold as `id` is on its way."""
        token = self.held[which].get(id)
        return token is not None and token.leaving

    def held_for(self) -> float | None:
        """Return for how many seconds it has held what it has held for longest."""
        oldest = [next(iter(held.values())).taken for held in self.held if held]
        return time.monotonic() - min(oldest) if oldest else None

    async def run(
        self,
        script: Script,
        which: int,
        args: Iterable[bytes],
        *,
        keys: Iterable[bytes] = (),
        over: Commands | None = None,
    ) -> Any:
        """Run `script` on one of the streams as this consumer, or `over` other connections."""
        kind = b"1" if which == RETRY else self.places[which].prefix
        head = (self.keys.group, self.name, kind)
        commands = self.commands if over is None else over
        names = [self.streams[which], *keys, self.keys.starts]
        return await commands.eval(script, names, [*head, *args])

    async def pending(self, which: int, start: bytes, count: int) -> list[bytes]:
        """Return the ids that are pending for this consumer on the server, from `start` on."""
        args = (self.streams[which], self.keys.group, start, b"+", b"%d" % count, self.name)
        reply = await self.commands.call(b"XPENDING", *args)
        return [entry[0] for entry in reply]
