"""`GroupSource`: one member of an unordered group, and the settlement of its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from anymq.driver import (
    Begun,
    MessageTooLarge,
    Nack,
    NotFound,
    Received,
    Record,
    Rejected,
    Source,
    SourceLost,
    StoreRecords,
    attempt_of,
    logger,
)

from .connection import Commands, ReadConnection
from .delays import delay_argument
from .errors import code_of
from .messages import RETRY, Token, copy_fields, fields
from .positions import BEFORE_ALL
from .publisher import outcome
from .scripts import ACK, BEGIN_HANDLING, EXTEND, HAND_OVER, LEAVE, NACK, REJECT
from .scripts.maintenance import Maintenance, MaintenanceTask
from .scripts.member import Fetcher, Member
from .topology import RedisTopic, create_groups

log = logger("anymq.redis")

_GROUP_GONE = ("NOGROUP", "UNBLOCKED")
"""The codes of errors that a deleted group causes."""
_LEAVE_PAGE_ENTRIES = 100
_LEAVE_SECONDS = 2.0
"""Less than the core allows `aclose`."""
_MAX_CALL_BYTES = 8 * 1024 * 1024
_MAX_CALL_ENTRIES = 500
"""The most that one script call carries, because the server runs nothing else meanwhile."""
_MAX_FIELD_PARTS = 7900
"""The most names and values in one XADD: the stack of a Lua script ends at 8,000."""


class GroupSource(Source):
    """A consumer of the group on the topic's streams and on the group's retry stream."""

    counts_starts = True

    def __init__(
        self,
        member: Member,
        reader: ReadConnection,
        *,
        settlement: Settlement,
        maintenance: Maintenance,
        tasks: Sequence[MaintenanceTask],
    ) -> None:
        self._member = member
        self._reader = reader
        self._fetcher = Fetcher(member, reader)
        self._settlement = settlement
        self._maintenance = maintenance
        self._tasks = tasks
        self._closed = False
        maintenance.add(*tasks)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        try:
            return await self._fetcher.fetch(limit, wait)
        except ResponseError as error:
            self._fetcher.recover_soon()
            if code_of(error) not in _GROUP_GONE:
                raise
            await self._recreate_group(error)
            return []
        except BaseException:
            self._fetcher.recover_soon()
            raise

    async def ack(self, records: Sequence[Received]) -> None:
        await self._settlement.ack(records)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        await self._settlement.nack(nacks)

    async def release(self, nacks: Sequence[Nack]) -> None:
        # The copies carry the attempt, so they need not differ from those of failed records.
        await self._settlement.nack(nacks)

    def known_attempt(self, record: Received) -> int | None:
        token: Token = record.token
        if token.starts is None:
            return None
        return attempt_of(record) - record.redeliveries + token.earlier + token.starts

    async def begin(self, begun: Sequence[Begun]) -> None:
        await self._settlement.begin(begun)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        await self._settlement.reject(rejected)

    async def extend(self, records: Sequence[Received]) -> None:
        await self._settlement.extend([*records, *self._fetcher.buffered])

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        commands = self._member.commands.for_other_loop()
        try:
            await self._settlement.extend(records, commands)
        finally:
            await commands.aclose()
        return True

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._reader.aclose()
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._maintenance.stop(*self._tasks)
                await self._leave()
        except (RedisError, OSError) as error:
            log.debug(
                "leaving %s failed: %s; other members claim its deliveries when their lease ends",
                self._member.spec.topic,
                error,
            )
        finally:
            self._fetcher.buffered.clear()
            await self._reader.aclose()

    async def _leave(self) -> None:
        """Return pending entries to the group, with their known starts, and delete the consumer.

        XGROUP DELCONSUMER alone would lose the pending entries.
        """
        member = self._member
        for index in member.indexes:
            while page := await member.pending(index, b"-", _LEAVE_PAGE_ENTRIES):
                if not await self._settlement.hand_over(index, page):
                    break
            await member.run(LEAVE, index, [], keys=[member.keys.members])

    async def _recreate_group(self, error: ResponseError) -> None:
        """Create the group again: it was deleted, or the server lost it (FLUSHALL, a failover)."""
        member = self._member
        topic = member.topic
        starts = [BEFORE_ALL] * topic.partitions
        try:
            created = await create_groups(member.commands, member.spec, topic, member.keys, starts)
        except NotFound as missing:
            raise SourceLost(f"{missing}") from error
        for index in created:
            self._fetcher.reset(index)
        if created - {RETRY}:
            log.warning(
                "group %s of %s was deleted; recreated it at the earliest message: messages "
                "may have been lost, and all that the topic still has are redelivered",
                member.spec.group,
                member.spec.topic.name,
            )


class Settlement:
    """Settles a member's deliveries, each call in one atomic step for up to 500 of them.

    Tokens that the member does not hold are ignored. A call may be repeated after an error, because
    the server ignores an entry that is no longer pending. `on_delay` is called with the seconds of
    the shortest delay that begins.
    """

    def __init__(
        self,
        member: Member,
        on_delay: Callable[[float], None],
        find_topic: Callable[[str], RedisTopic],
    ) -> None:
        self._member = member
        self._on_delay = on_delay
        self._find_topic = find_topic

    async def ack(self, records: Iterable[Received]) -> None:
        """Acknowledge by XACK."""
        for index, tokens in self._member.tokens_of(records):
            for page in _pages(tokens):
                await self._member.run(ACK, index, _ids(page))
                self._member.drop(index, page)

    async def extend(self, records: Iterable[Received], commands: Commands | None = None) -> None:
        """Renew leases by XCLAIM … JUSTID; drop deliveries that another member has claimed."""
        for index, tokens in self._member.tokens_of(records):
            for page in _pages(tokens):
                lost = set(await self._member.run(EXTEND, index, _ids(page), over=commands))
                self._member.drop(index, (token for token in page if token.id in lost))

    async def begin(self, begun: Iterable[Begun]) -> None:
        """Store the number of handlers that have started with each pending entry."""
        items = {id(item.received.token): item for item in begun}
        for index, tokens in self._member.tokens_of(item.received for item in items.values()):
            for page in _pages(tokens):
                args: list[bytes] = []
                for token in page:
                    starts = items[id(token)].redeliveries - token.earlier
                    args += (token.id, b"%d" % max(0, starts))
                await self._member.run(BEGIN_HANDLING, index, args)

    async def hand_over(self, index: int, ids: Sequence[bytes]) -> int:
        """Return unsettled entries to the group, uncounted; return how many were still pending."""
        done: int = await self._member.run(HAND_OVER, index, ids, keys=[self._member.keys.retry])
        return done

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Store a copy in the retry stream, or among the delayed ones, and settle the original."""
        by_token = {id(nack.received.token): nack for nack in nacks}
        keys = self._member.keys
        for index, tokens in self._member.tokens_of(nack.received for nack in nacks):
            for page in _pages_by_size(tokens, lambda token: by_token[id(token)].copy):
                items = [(token, by_token[id(token)]) for token in page]
                args = [arg for token, nack in items for arg in _copy_arguments(token, nack)]
                with self._member.copying(page):
                    await self._member.run(
                        NACK, index, args, keys=[keys.retry, keys.delayed, keys.payloads]
                    )
                self._member.drop(index, page)
                if delays := [nack.delay for _, nack in items if nack.delay > 0]:
                    self._on_delay(min(delays))

    async def reject(self, rejected: Sequence[Rejected]) -> None:
        """Store dead letters and settle the originals; try all, then raise the first failure."""
        letters = {id(item.received.token): item.letter for item in rejected}
        failures: list[BaseException] = []
        for index, tokens in self._member.tokens_of(item.received for item in rejected):
            for page in _pages_by_size(tokens, lambda token: letters[id(token)]):
                items = [(token, letters[id(token)]) for token in page]
                with self._member.copying(page):
                    replies = await self._reject(index, items)
                for (token, letter), reply in zip(items, replies, strict=True):
                    topic = self._find_topic(letter.topic)
                    error = None if reply == 1 else outcome(reply, topic, 0)
                    if isinstance(error, BaseException):
                        failures.append(error)
                    else:
                        self._member.drop(index, [token])
        if failures:
            raise failures[0]

    async def _reject(self, index: int, items: Iterable[tuple[Token, Record]]) -> Sequence[Any]:
        numbers: dict[bytes, int] = {}
        args: list[bytes] = []
        for token, letter in items:
            topic = self._find_topic(letter.topic)
            stream = topic.keys.streams[topic.partition(letter)]
            number = numbers.setdefault(stream, len(numbers) + 2)
            create = topic.spec.create or topic.partitions > 1
            flat = _bounded(fields(letter))
            args += (token.id, b"%d" % number, b"1" if create else b"0", b"%d" % len(flat))
            args += flat
        replies: Sequence[Any] = await self._member.run(REJECT, index, args, keys=numbers)
        return replies


def _ids(tokens: Iterable[Token]) -> list[bytes]:
    return [token.id for token in tokens]


def _copy_arguments(token: Token, nack: Nack) -> list[bytes]:
    flat = _bounded(copy_fields(nack.copy, token))
    return [token.id, b"%d" % delay_argument(nack.delay), b"%d" % len(flat), *flat]


def _bounded(flat: list[bytes]) -> list[bytes]:
    if len(flat) > _MAX_FIELD_PARTS:
        raise MessageTooLarge(
            f"{len(flat) // 2} fields; at most {_MAX_FIELD_PARTS // 2} can be stored"
        )
    return flat


def _pages(tokens: Sequence[Token], size: int = _MAX_CALL_ENTRIES) -> Iterator[Sequence[Token]]:
    return (tokens[start : start + size] for start in range(0, len(tokens), size))


def _pages_by_size(
    tokens: Iterable[Token], record_of: Callable[[Token], Record]
) -> Iterator[list[Token]]:
    page: list[Token] = []
    size = 0
    for token in tokens:
        length = len(record_of(token).body)
        if page and (size + length > _MAX_CALL_BYTES or len(page) >= _MAX_CALL_ENTRIES):
            yield page
            page, size = [], 0
        page.append(token)
        size += length
    if page:
        yield page
