"""`Settlement`: the verbs of a member, each an atomic step on the server for many messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from anymq.driver import Begun, MessageTooLarge, Nack, Received, Record, Rejected, attempt_of

from .connection import Commands
from .messages import Token, copy_fields, fields
from .publisher import outcome
from .scripts import ACK, BEGIN_HANDLING, EXTEND, HAND_OVER, PUT_BACK, REJECT
from .scripts.member import Member
from .topology import RedisTopic

# What one script call carries at most: it holds up the server while it runs.
_BYTES = 8 * 1024 * 1024
_ITEMS = 500
# What a script can hand to one XADD: its stack ends at 8,000.
_VALUES = 7900


def known_attempt(record: Received) -> int | None:
    """See `Source.known_attempt`."""
    token: Token = record.token
    return None if token.starts is None else _first(record) + token.earlier + token.starts


def _first(record: Received) -> int:
    """Return the attempt that the header of `record` says."""
    return attempt_of(record) - record.redeliveries


class Settlement:
    """Settles what is still ours and drops the rest.

    Safe to repeat after an error: the server does not do a second time what it has done, for
    then the entry is no longer pending. `expect` is told of every delay that begins.
    """

    def __init__(
        self,
        member: Member,
        expect: Callable[[float], None],
        find_topic: Callable[[str], RedisTopic],
    ) -> None:
        self._member = member
        self._expect = expect
        self._find_topic = find_topic

    async def ack(self, records: Iterable[Received]) -> None:
        """XACK."""
        for which, tokens in self._member.ours(records):
            for page in _pages(tokens):
                await self._member.run(ACK, which, _ids(page))
                self._member.let_go(which, page)

    async def extend(self, records: Iterable[Received], commands: Commands | None = None) -> None:
        """XCLAIM … JUSTID; what another member has by now is let go."""
        for which, tokens in self._member.ours(records):
            for page in _pages(tokens):
                lost = set(await self._member.run(EXTEND, which, _ids(page), over=commands))
                self._member.let_go(which, (token for token in page if token.id in lost))

    async def begin(self, begun: Iterable[Begun]) -> None:
        """Note the starts of handlers beside what is pending."""
        attempts = {id(item.received.token): item for item in begun}
        for which, tokens in self._member.ours(item.received for item in attempts.values()):
            for page in _pages(tokens):
                args: list[bytes] = []
                for token in page:
                    item = attempts[id(token)]
                    starts = item.attempt - _first(item.received) - token.earlier
                    args += (token.id, b"%d" % max(0, starts))
                await self._member.run(BEGIN_HANDLING, which, args)

    async def release(self, nacks: Sequence[Nack]) -> None:
        """Put the copy, which says the attempt, into the group's retry stream at once."""
        await self.nack(nacks)

    async def hand_over(self, which: int, ids: Sequence[bytes]) -> int:
        """Give back entries by id, which no verb has settled; return how many."""
        done: int = await self._member.run(HAND_OVER, which, ids, keys=[self._member.keys.retry])
        return done

    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Put the copy back, into the group's retry stream or to wait until it is due."""
        by_token = {id(nack.received.token): nack for nack in nacks}
        keys = self._member.keys
        for which, tokens in self._member.ours(nack.received for nack in nacks):
            for page in _parcels(tokens, lambda token: by_token[id(token)].copy):
                items = [(token, by_token[id(token)]) for token in page]
                args = [arg for token, nack in items for arg in _put_back(token, nack)]
                with self._member.moving(page):
                    await self._member.run(
                        PUT_BACK, which, args, keys=[keys.retry, keys.delayed, keys.payloads]
                    )
                self._member.let_go(which, page)
                if delays := [nack.delay for _, nack in items if nack.delay > 0]:
                    self._expect(min(delays))

    async def reject(self, rejected: Sequence[Rejected]) -> None:
        """Store the letter and XACK; raise the first failure when all have been tried."""
        letters = {id(item.received.token): item.letter for item in rejected}
        failures: list[BaseException] = []
        for which, tokens in self._member.ours(item.received for item in rejected):
            for page in _parcels(tokens, lambda token: letters[id(token)]):
                items = [(token, letters[id(token)]) for token in page]
                with self._member.moving(page):
                    replies = await self._reject(which, items)
                for (token, letter), reply in zip(items, replies, strict=True):
                    topic = self._find_topic(letter.topic)
                    error = None if reply == 1 else outcome(reply, topic, 0)
                    if isinstance(error, BaseException):
                        failures.append(error)
                    else:
                        self._member.let_go(which, [token])
        if failures:
            raise failures[0]

    async def _reject(self, which: int, items: Iterable[tuple[Token, Record]]) -> Sequence[Any]:
        numbers: dict[bytes, int] = {}
        args: list[bytes] = []
        for token, letter in items:
            topic = self._find_topic(letter.topic)
            stream = topic.keys.streams[topic.partition(letter)]
            number = numbers.setdefault(stream, len(numbers) + 2)
            there = topic.spec.create or topic.partitions > 1
            flat = _bounded(fields(letter))
            args += (token.id, b"%d" % number, b"1" if there else b"0", b"%d" % len(flat))
            args += flat
        replies: Sequence[Any] = await self._member.run(REJECT, which, args, keys=numbers)
        return replies


def _ids(tokens: Iterable[Token]) -> list[bytes]:
    return [token.id for token in tokens]


def _put_back(token: Token, nack: Nack) -> list[bytes]:
    flat = _bounded(copy_fields(nack.copy, token))
    delay = math.ceil(max(0.0, nack.delay) * 1000)
    return [token.id, b"%d" % delay, b"%d" % len(flat), *flat]


def _bounded(flat: list[bytes]) -> list[bytes]:
    if len(flat) > _VALUES:
        raise MessageTooLarge(f"{len(flat) // 2} fields; at most {_VALUES // 2} can be stored")
    return flat


def _pages(tokens: Sequence[Token], size: int = _ITEMS) -> Iterator[Sequence[Token]]:
    return (tokens[start : start + size] for start in range(0, len(tokens), size))


def _parcels(
    tokens: Iterable[Token], record_of: Callable[[Token], Record]
) -> Iterator[list[Token]]:
    parcel: list[Token] = []
    size = 0
    for token in tokens:
        length = len(record_of(token).body)
        if parcel and (size + length > _BYTES or len(parcel) >= _ITEMS):
            yield parcel
            parcel, size = [], 0
        parcel.append(token)
        size += length
    if parcel:
        yield parcel
