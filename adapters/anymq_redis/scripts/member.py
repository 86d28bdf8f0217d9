"""`Member` and `Fetcher`: one consumer of a group, the deliveries it holds, and how it fetches."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from anymq.driver import Received, SubscribeSpec, logger

from ..client.codec import pack
from ..connection import MAX_BLOCK_SECONDS, Commands, ReadConnection, ReadSize
from ..messages import RETRY, StreamRef, Token, received
from ..topology import RedisTopic
from . import CLAIM, READ, TAKE, Script
from .keys import GroupKeys

log = logger("anymq.redis")

Tokens = dict[bytes, Token]

_PAGE_ENTRIES = 500


class Member:
    """A consumer and its tokens, by stream and entry id.

    The streams are the topic's partitions and, last, the group's retry stream. A token that is not
    held is stale: it has been settled, or its lease was lost.
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
        self.indexes: tuple[int, ...] = (RETRY, *range(topic.partitions))
        self.index_of = dict(zip(self.streams, (*self.indexes[1:], RETRY), strict=True))
        self.refs = tuple(
            StreamRef(key, index, b"" if index == RETRY else topic.keys.prefix(index))
            for key, index in self.index_of.items()
        )
        self.held: tuple[Tokens, ...] = tuple({} for _ in self.streams)

    def hold(self, index: int, entry: Sequence[Any], count: int, starts: int | None) -> Received:
        """Hold `entry`, which has been delivered `count` times, and return it as a record.

        `starts` is the number of handlers known to have started with it, None for its first
        delivery.
        """
        id = entry[0]
        token = self.held[index][id] = Token(id, index, time.monotonic())
        token.starts = starts
        return received(self.refs[index], entry, token, count - 1)

    def hold_new(self, index: int, entries: Iterable[Sequence[Any]]) -> list[Received]:
        """Hold `entries` that are delivered for the first time, and return them as records."""
        held, stream, now = self.held[index], self.refs[index], time.monotonic()
        records: list[Received] = []
        for entry in entries:
            id = entry[0]
            token = held[id] = Token(id, index, now)
            records.append(received(stream, entry, token, 0))
        return records

    def tokens_of(self, records: Iterable[Received]) -> list[tuple[int, list[Token]]]:
        """Return by stream the tokens of `records` that are held, each once."""
        tokens: dict[int, Tokens] = {}
        for record in records:
            token: Token = record.token
            if self.held[token.index].get(token.id) is token:
                tokens.setdefault(token.index, {})[token.id] = token
        return [(index, list(found.values())) for index, found in tokens.items()]

    def drop(self, index: int, tokens: Iterable[Token]) -> None:
        """Stop holding `tokens`, which are settled or lost."""
        held = self.held[index]
        for token in tokens:
            if held.get(token.id) is token:
                del held[token.id]

    @contextmanager
    def copying(self, tokens: Sequence[Token]) -> Iterator[None]:
        """Mark `tokens`: a claim that returns their entries meanwhile returns stale ones."""
        for token in tokens:
            token.copying = True
        try:
            yield
        finally:
            for token in tokens:
                token.copying = False

    def is_copying(self, index: int, id: bytes) -> bool:
        """Whether the server is being asked to store a copy of the held entry `id`."""
        token = self.held[index].get(id)
        return token is not None and token.copying

    def held_for(self) -> float | None:
        """Return for how many seconds the oldest held delivery has been held; None without one."""
        oldest = [next(iter(held.values())).taken for held in self.held if held]
        return time.monotonic() - min(oldest) if oldest else None

    async def run(
        self,
        script: Script,
        index: int,
        args: Iterable[bytes],
        *,
        keys: Iterable[bytes] = (),
        over: Commands | None = None,
    ) -> Any:
        """Run `script` on one of the streams as this consumer, by other connections if `over`."""
        kind = b"1" if index == RETRY else self.refs[index].prefix
        head = (self.keys.group, self.name, kind)
        commands = self.commands if over is None else over
        names = [self.streams[index], *keys, self.keys.starts]
        return await commands.eval(script, names, [*head, *args])

    async def pending(self, index: int, start: bytes, count: int) -> list[bytes]:
        """Return the ids that the server has as pending for this consumer, from `start` on."""
        args = (self.streams[index], self.keys.group, start, b"+", b"%d" % count, self.name)
        reply = await self.commands.call(b"XPENDING", *args)
        return [entry[0] for entry in reply]


class Fetcher:
    """Fetches new entries, expired ones of other consumers, and ones lost with a broken read.

    `buffered` holds records that no `fetch` has returned yet. XREADGROUP counts by stream, so a
    read of several streams may return more than it was asked for.
    """

    def __init__(self, member: Member, reader: ReadConnection) -> None:
        self.buffered: deque[Received] = deque()
        self._member = member
        self._reader = reader
        self._read_size = ReadSize()
        self._lease = b"%d" % max(1, round(member.spec.ack_deadline * 1000))
        self._claim_at = 0.0
        self._cursors = dict.fromkeys(member.indexes, b"0-0")
        self._recoveries = 0
        self._recover_at = 0.0
        self._turn = 0

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Return up to `limit` records, waiting up to `wait` seconds for the first."""
        if not self.buffered:
            now = time.monotonic()
            if self._recoveries and now >= self._recover_at:
                await self._recover(limit)
            if not self.buffered and now >= self._claim_at:
                await self._claim(limit)
            if not self.buffered:
                await self._read(limit, wait)
        if limit >= len(self.buffered):
            records = list(self.buffered)
            self.buffered.clear()
        else:
            records = [self.buffered.popleft() for _ in range(limit)]
        return records

    def recover_soon(self) -> None:
        """Recover what the server delivered to a read that failed: pending here, but not held.

        The next fetch looks for it, and another one when the read must have ended on the server.
        """
        self._recoveries, self._recover_at = 2, 0.0

    def reset(self, index: int) -> None:
        """Drop everything that was fetched from a stream whose group has been deleted."""
        self._member.held[index].clear()
        self.buffered = deque(record for record in self.buffered if record.token.index != index)
        self._cursors[index] = b"0-0"

    async def _read(self, limit: int, wait: float) -> None:
        streams = [self._member.streams[index] for index in self._member.indexes]
        if len(streams) == 2:
            self._buffer(await self._block(streams, limit, wait))
            return
        self._buffer(await self._take(streams, limit))
        if not self.buffered:
            self._buffer(await self._block(streams, -(-limit // len(streams)), wait))

    async def _take(self, streams: Sequence[bytes], limit: int) -> Any:
        """Take what is there, at most `limit` in all: other members cannot get buffered entries."""
        retry, *topic = streams
        self._turn = (self._turn + 1) % len(topic)
        args = (self._member.keys.group, self._member.name, self._read_size.count(limit))
        keys = [retry, *topic[self._turn :], *topic[: self._turn]]
        return await self._member.commands.eval(READ, keys, args)

    async def _block(self, streams: Sequence[bytes], limit: int, wait: float) -> Any:
        command = pack(
            *(b"XREADGROUP", b"GROUP", self._member.keys.group, self._member.name),
            *self._read_size.arguments(limit, wait),
            *(b"STREAMS", *streams, *[b">"] * len(streams)),
        )
        return await self._reader.read(command)

    def _buffer(self, reply: Sequence[Any] | None) -> None:
        member = self._member
        self._read_size.learn(reply)
        for stream, entries in reply or ():
            self.buffered += member.hold_new(member.index_of[stream], entries)

    async def _claim(self, limit: int) -> None:
        """Claim entries whose lease has expired; the expired consumer may be this one."""
        for index in self._member.indexes:
            room = limit - len(self.buffered)
            if room <= 0:
                return
            args = (self._lease, self._cursors[index], b"%d" % min(room, _PAGE_ENTRIES))
            self._cursors[index] = await self._collect(
                CLAIM, index, args, keys=[self._member.keys.members]
            )
        if all(cursor == b"0-0" for cursor in self._cursors.values()):
            spread = random.uniform(0.8, 1.2)
            self._claim_at = time.monotonic() + self._member.spec.ack_deadline / 3 * spread

    async def _recover(self, limit: int) -> None:
        for index in self._member.indexes:
            held = self._member.held[index]
            start = b"-"
            while page := await self._member.pending(index, start, _PAGE_ENTRIES):
                if lost := [id for id in page if id not in held]:
                    room = limit - len(self.buffered)
                    await self._collect(TAKE, index, lost[:room])
                    if len(lost) >= room:
                        return  # There may be more: the next fetch continues.
                start = b"(" + page[-1]
        self._recoveries -= 1
        self._recover_at = time.monotonic() + MAX_BLOCK_SECONDS + 1

    async def _collect(
        self, script: Script, index: int, args: Iterable[bytes], *, keys: Iterable[bytes] = ()
    ) -> bytes:
        """Run a script that returns entries, and buffer them; return the cursor to continue at."""
        reply: tuple[bytes, list[Any], int] = await self._member.run(script, index, args, keys=keys)
        cursor, entries, deleted = reply
        member = self._member
        self.buffered += (
            member.hold(index, (id, flat), count, None if starts < 0 else starts)
            for id, flat, count, starts in entries
            if not member.is_copying(index, id)
        )
        if deleted:
            log.warning(
                "%d messages of %s were deleted from the stream before group %s had settled them",
                deleted,
                member.spec.topic.name,
                member.spec.group,
            )
        return cursor
