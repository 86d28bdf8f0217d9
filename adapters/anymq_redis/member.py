"""`Member`: one consumer of a group, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from anymq.driver import Received, SubscribeSpec

from .connection import Commands
from .keys import GroupKeys
from .scripts import Script
from .wire import Token, received

TOPIC, RETRY = 0, 1
"""The two streams of a group: the topic's, and its own with what comes back to it."""

Tokens = dict[bytes, Token]


class Member:
    """A consumer and its tokens, by stream and entry id.

    A token that is no longer held is stale: its lease was lost, or it has been settled.
    """

    def __init__(self, commands: Commands, spec: SubscribeSpec, keys: GroupKeys) -> None:
        self.commands = commands
        self.spec = spec
        self.keys = keys
        self.name = spec.member.encode()
        self.streams = (keys.stream, keys.retry)
        self.held: tuple[Tokens, Tokens] = ({}, {})

    def keep(self, which: int, entry: Sequence[Any], count: int) -> Received:
        """Hold `entry`, delivered `count` times so far, and return it as a message."""
        id = entry[0]
        token = Token(id, id, retry=which == RETRY)
        self.held[which][id] = token
        return received(self.streams[which].decode(), entry, token, count - 1)

    def ours(self, records: Iterable[Received]) -> list[tuple[int, list[Token]]]:
        """Return by stream those tokens of `records` that are not stale, each once."""
        tokens: tuple[Tokens, Tokens] = ({}, {})
        for record in records:
            token: Token = record.token
            if self.held[token.retry].get(token.id) is token:
                tokens[token.retry][token.id] = token
        return [(which, list(tokens[which].values())) for which in (TOPIC, RETRY) if tokens[which]]

    def let_go(self, which: int, tokens: Iterable[Token]) -> None:
        """These are settled."""
        held = self.held[which]
        for token in tokens:
            if held.get(token.id) is token:
                del held[token.id]

    async def run(
        self, script: Script, which: int, args: Iterable[bytes], *, keys: Iterable[bytes] = ()
    ) -> Any:
        """Run `script` on one of the streams as this consumer."""
        head = (self.keys.group, self.name, b"%d" % which)
        return await self.commands.eval(script, [self.streams[which], *keys], [*head, *args])

    async def pending(self, which: int, start: bytes, count: int) -> list[bytes]:
        """Return the ids that are pending for this consumer on the server, from `start` on."""
        args = (self.streams[which], self.keys.group, start, b"+", b"%d" % count, self.name)
        reply = await self.commands.call(b"XPENDING", *args)
        return [entry[0] for entry in reply]
