"""`GroupSource`: one member of a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.exceptions import RedisError, ResponseError

from anymq.driver import (
    Begun,
    Nack,
    NotFound,
    Received,
    Rejected,
    Source,
    SourceLost,
    StoreRecords,
    logger,
)

from .connection import ReadConnection
from .errors import code_of
from .intake import Intake
from .messages import RETRY
from .positions import FIRST
from .scripts import LEAVE
from .scripts.maintenance import Chore, Upkeep
from .scripts.member import Member
from .settlement import Settlement, known_attempt
from .topology import create_groups

log = logger("anymq.redis")

_GONE = ("NOGROUP", "UNBLOCKED")
_PAGE = 100
# Less than what the core gives `aclose`.
_LEAVE = 2.0


class GroupSource(Source):
    """A consumer of the group on the topic's stream and on the group's own retry stream."""

    counts_starts = True

    def __init__(
        self,
        member: Member,
        reader: ReadConnection,
        *,
        settlement: Settlement,
        upkeep: Upkeep,
        chores: Sequence[Chore],
    ) -> None:
        self._member = member
        self._reader = reader
        self._intake = Intake(member, reader)
        self._settlement = settlement
        self._upkeep = upkeep
        self._chores = chores
        self._closed = False
        upkeep.add(*chores)

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        if limit <= 0:
            return []
        try:
            return await self._intake.take(limit, wait)
        except ResponseError as error:
            self._intake.suspect()
            if code_of(error) not in _GONE:
                raise
            await self._create_again(error)
            return []
        except BaseException:
            self._intake.suspect()
            raise

    async def ack(self, records: Sequence[Received]) -> None:
        await self._settlement.ack(records)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        await self._settlement.nack(nacks)

    async def release(self, nacks: Sequence[Nack]) -> None:
        await self._settlement.release(nacks)

    def known_attempt(self, record: Received) -> int | None:
        return known_attempt(record)

    async def begin(self, begun: Sequence[Begun]) -> None:
        await self._settlement.begin(begun)

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        await self._settlement.reject(rejected)

    async def extend(self, records: Sequence[Received]) -> None:
        await self._settlement.extend([*records, *self._intake.spare])

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        commands = self._member.commands.apart()
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
            async with asyncio.timeout(_LEAVE):
                await self._upkeep.drop(*self._chores)
                await self._leave()
        except (RedisError, OSError) as error:
            log.debug("leaving %s failed, others will claim: %s", self._member.spec.topic, error)
        finally:
            self._intake.spare.clear()
            await self._reader.aclose()

    async def _leave(self) -> None:
        """Hand over what is pending, with the starts that are known, and forget the consumer.

        XGROUP DELCONSUMER alone would lose what is pending.
        """
        member = self._member
        for which in member.all:
            while page := await member.pending(which, b"-", _PAGE):
                if not await self._settlement.hand_over(which, page):
                    break
            await member.run(LEAVE, which, [], keys=[member.keys.members])

    async def _create_again(self, error: ResponseError) -> None:
        """The group has gone: FLUSHALL, a failover, or somebody deleted it."""
        member = self._member
        topic = member.topic
        starts = [FIRST] * topic.partitions
        try:
            created = await create_groups(member.commands, member.spec, topic, member.keys, starts)
        except NotFound as missing:
            raise SourceLost(f"{missing}") from error
        for which in created:
            self._intake.forget(which)
        if created - {RETRY}:
            log.warning(
                "group %s on %s was gone and has been created again at the beginning: messages "
                "may have been lost, and those that are still there are delivered again",
                member.spec.group,
                member.spec.topic.name,
            )
