"""`Intake`: how a member comes by messages: new ones, orphans, and its own lost ones."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from anymq.driver import Received, logger

from .client.codec import pack
from .connection import LONGEST_BLOCK, ReadConnection
from .reading import ReadSize
from .scripts import CLAIM, READ, TAKE, Script
from .scripts.member import Member

log = logger("anymq.redis")

_PAGE = 500


class Intake:
    """Reads new entries and claims those whose consumer let the lease go: always both.

    `spare` is what was taken but not yet handed to the core: XREADGROUP counts by stream, and so
    several streams may give more than was asked for.
    """

    def __init__(self, member: Member, reader: ReadConnection) -> None:
        self.spare: deque[Received] = deque()
        self._member = member
        self._reader = reader
        self._read_size = ReadSize()
        self._lease = b"%d" % max(1, round(member.spec.ack_deadline * 1000))
        self._claim_at = 0.0
        self._cursors = dict.fromkeys(member.all, b"0-0")
        self._recoveries = 0
        self._recover_at = 0.0
        self._turn = 0

    async def take(self, limit: int, wait: float) -> list[Received]:
        """Return up to `limit` messages, waiting up to `wait` seconds for the first."""
        if not self.spare:
            now = time.monotonic()
            if self._recoveries and now >= self._recover_at:
                await self._recover(limit)
            if not self.spare and now >= self._claim_at:
                await self._claim(limit)
            if not self.spare:
                await self._read(limit, wait)
        if limit >= len(self.spare):
            records = list(self.spare)
            self.spare.clear()
        else:
            records = [self.spare.popleft() for _ in range(limit)]
        return records

    def suspect(self) -> None:
        """A read has died: what the server handed out to it is pending for us, unseen.

        Looked for at once, and again when the server's side of that read must be over too.
        """
        self._recoveries, self._recover_at = 2, 0.0

    def forget(self, which: int) -> None:
        """The group on this stream has gone, and with it all that was taken from it."""
        self._member.held[which].clear()
        self.spare = deque(record for record in self.spare if record.token.which != which)
        self._cursors[which] = b"0-0"

    async def _read(self, limit: int, wait: float) -> None:
        streams = [self._member.streams[which] for which in self._member.all]
        if len(streams) == 2:
            self._keep(await self._block(streams, limit, wait))
            return
        self._keep(await self._take(streams, limit))
        if not self.spare:
            self._keep(await self._block(streams, -(-limit // len(streams)), wait))

    async def _take(self, streams: Sequence[bytes], limit: int) -> Any:
        """Take what is there, no more than `limit` in all: what is spare is kept from others."""
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

    def _keep(self, reply: Sequence[Any] | None) -> None:
        member = self._member
        self._read_size.learn(reply)
        for stream, entries in reply or ():
            which = member.which[stream]
            self.spare += member.keep_new(which, entries)

    async def _claim(self, limit: int) -> None:
        """Take over what its owner has not extended for its `ack_deadline`, ourselves included."""
        for which in self._member.all:
            room = limit - len(self.spare)
            if room <= 0:
                return
            args = (self._lease, self._cursors[which], b"%d" % min(room, _PAGE))
            self._cursors[which] = await self._collect(
                CLAIM, which, args, keys=[self._member.keys.members]
            )
        if all(cursor == b"0-0" for cursor in self._cursors.values()):
            spread = random.uniform(0.8, 1.2)
            self._claim_at = time.monotonic() + self._member.spec.ack_deadline / 3 * spread

    async def _recover(self, limit: int) -> None:
        for which in self._member.all:
            held = self._member.held[which]
            start = b"-"
            while page := await self._member.pending(which, start, _PAGE):
                if lost := [id for id in page if id not in held]:
                    room = limit - len(self.spare)
                    await self._collect(TAKE, which, lost[:room])
                    if len(lost) >= room:
                        return  # there may be more: look again next time
                start = b"(" + page[-1]
        self._recoveries -= 1
        self._recover_at = time.monotonic() + LONGEST_BLOCK + 1

    async def _collect(
        self, script: Script, which: int, args: Iterable[bytes], *, keys: Iterable[bytes] = ()
    ) -> bytes:
        reply: tuple[bytes, list[Any], int] = await self._member.run(script, which, args, keys=keys)
        cursor, entries, deleted = reply
        member = self._member
        self.spare += (
            member.keep(which, (id, flat), count, None if starts < 0 else starts)
            for id, flat, count, starts in entries
            if not member.is_leaving(which, id)
        )
        if deleted:
            spec = self._member.spec
            log.warning(
                "%d messages of %s were deleted from the stream before group %s had settled them",
                deleted,
                spec.topic.name,
                spec.group,
            )
        return cursor
