"""`DeadLetters`: list rejected messages, redrive them, or discard them.

The dead letters of a group are a topic: a log, from which most brokers cannot delete single
messages. So a second log beside it, the settlement log, notes the letters that were redriven or
discarded. The dead letters are the messages of the first log that the second does not note. Both
logs are append-only: a redrive publishes the copy, awaits its confirmation, then notes the letter.
If the process is killed at any point, nothing is lost. If it is killed between the two steps, the
letter is still listed although its copy was published.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from ..driver.clock import Clock
from ..driver.specs import BROADCAST_ONLY, CONTROL, ONLY_GROUP, TopicSpec
from ..errors import NotFound, StateError, TransientError, UnsupportedOperation
from ..identity import copy_id
from ..ids import new_id
from ..message import Message
from ..names import check_headers, check_key
from ..payload import encode_payload
from ..publishing.publisher import Publisher
from ..topic import dead_letter_topic
from ..wire.cloudevents import encode
from ..wire.dead_letter_headers import (
    ATTEMPTS,
    ERROR_MESSAGE,
    ERROR_TYPE,
    FAILED_AT,
    FIRST_SEEN,
    GROUP,
    REASON,
    REDUCED,
    TOPIC,
    history_of,
    number_of,
    traceback_in,
    without_failure,
)
from ..wire.forged_headers import REDRIVEN
from .topic_access import TopicAccess

LETTERS_PER_CALL = 200
"""The most letters that are redriven or noted together."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter: the original message, and how it failed."""

    position: str
    """The position of the letter in the dead-letter topic."""
    message: Message
    topic: str
    group: str | None
    reason: str | None = None
    attempts: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    """The end of the error's traceback, where the letter holds one."""
    first_seen: datetime | None = None
    failed_at: datetime | None = None
    history: tuple[Mapping[str, str], ...] = ()
    """Its earlier failures, oldest first: it was redriven after each of them."""
    reduced: tuple[str, ...] = ()
    """The parts that are missing because the broker refused them: `body` or `headers`.

    Their sizes and digests are in the headers `anymq-dlq-…`.
    """

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; a body that is not text is in `body_base64`."""
        message = self.message
        try:
            body = {"body": message.body.decode()}
        except UnicodeDecodeError:
            body = {"body_base64": base64.b64encode(message.body).decode()}
        return {
            "position": self.position,
            "topic": self.topic,
            "group": self.group,
            "id": message.id,
            "key": message.key,
            "type": message.type,
            "source": message.source,
            "time": message.time.isoformat() if message.time else None,
            "content_type": message.content_type,
            "headers": dict(message.headers),
            **body,
            "reason": self.reason,
            "attempts": self.attempts,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "traceback": self.traceback,
            "first_seen": self.first_seen.isoformat() if self.first_seen else None,
            "failed_at": self.failed_at.isoformat() if self.failed_at else None,
            "history": [dict(item) for item in self.history],
            "reduced": list(self.reduced),
        }


Where = Callable[[Letter], bool]


class DeadLetters:
    """The dead letters of one group, see `Admin.dead_letters`.

    Listing reads the whole dead-letter topic. If two processes redrive the same letter at the same
    time, it may be redriven twice.
    """

    def __init__(
        self,
        access: TopicAccess,
        *,
        topic: str,
        group: str | None,
        stored_in: str | None,
        publisher: Publisher,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._access = access
        self._topic = topic
        self._group = group
        self._stored_in = stored_in or dead_letter_topic(topic, group)
        self._publisher = publisher
        self._clock = clock
        self._timeout = timeout

    @property
    def topic(self) -> str:
        """The dead-letter topic; it can be subscribed to like any other."""
        return self._stored_in

    async def list(self, *, where: Where | None = None, limit: int | None = None) -> list[Letter]:
        """Return the letters, oldest first in each partition: those `where` accepts, to `limit`."""
        found: list[Letter] = []
        async for letter in self:
            if where is None or where(letter):
                found.append(letter)
                if limit is not None and len(found) >= limit:
                    break
        return found

    async def __aiter__(self) -> AsyncIterator[Letter]:
        async for letter in self._unsettled(await self._settled()):
            yield letter

    async def _unsettled(self, settled: set[str]) -> AsyncIterator[Letter]:
        try:
            async for stored in self._access.browse(self._access.spec(self._stored_in)):
                if _mark(stored.position, stored.message.id) in settled:
                    continue
                letter = self._letter(stored.position, stored.message)
                if (letter.topic, letter.group) == (self._topic, self._group):
                    yield letter
        except NotFound:
            return  # no message was ever rejected

    async def count(self) -> int:
        """Return how many letters there are.

        If none was redriven or discarded, the broker reports the count, where it can. Otherwise the
        log is read from its beginning.
        """
        settled = await self._settled()
        if not settled and self._stored_in == dead_letter_topic(self._topic, self._group):
            try:
                stored = (await self._access.describe(self._access.spec(self._stored_in))).messages
            except NotFound:
                return 0
            except UnsupportedOperation:
                stored = None
            if stored is not None:
                return stored
        return len([letter async for letter in self._unsettled(settled)])

    async def show(self, position: str) -> Letter:
        """Return the letter at `position`; raises `NotFound`."""
        found = await self.list(where=lambda letter: letter.position == position, limit=1)
        if not found:
            raise NotFound(f"there is no dead letter {position!r} in {self._stored_in}")
        return found[0]

    async def redrive(self, *letters: Letter | str) -> int:
        """Redrive `letters` (or those at the positions) to their group; return how many.

        Only this group gets them, as first attempts, at the end of the topic: same id, body, key
        and headers, a new deduplication id, and the failures so far in `anymq-dlq-history`.
        Letters of broadcast go to every broadcast subscriber of that time, and to no group.
        Raises `StateError`, and redrives nothing, if one is of another topic or group, or is
        `reduced`: give the missing part with `redrive_edited`. If the broker refuses some letters,
        it raises that error after redriving the others, which are no longer listed.
        """
        return await self._redrive(
            [(item, item.message) for item in _whole(await self._these(letters))]
        )

    async def redrive_all(self, *, where: Where | None = None) -> int:
        """Redrive all letters, or those `where` accepts; return how many.

        Letters that are `reduced` stay.
        """
        letters = await self.list(where=where)
        whole = [letter for letter in letters if not letter.reduced]
        return await self._redrive([(letter, letter.message) for letter in whole])

    async def redrive_edited(
        self,
        letter: Letter | str,
        payload: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Redrive `letter` with another payload, and another key or headers where given.

        The id stays, so consumers see the same message, edited.
        """
        (found,) = await self._these((letter,))
        body, content_type = encode_payload(payload)
        edited = replace(found.message, body=body, content_type=content_type)
        if key is not None:
            edited = replace(edited, key=check_key(key))
        if headers is not None:
            kept = {name: v for name, v in edited.headers.items() if name.startswith(CONTROL)}
            edited = replace(edited, headers={**check_headers(headers), **kept})
        await self._redrive([(found, edited)])

    async def drop(self, *letters: Letter | str) -> int:
        """Discard `letters` (or those at the positions); return how many.

        They are no longer listed. The broker keeps the bytes until the dead-letter topic's
        retention, or `Admin.purge`, removes them.
        """
        found = await self._these(letters)
        self._check(found)
        await self._note("dropped", found)
        return len(found)

    async def drop_all(self, *, where: Where | None = None) -> int:
        """Discard all letters, or those `where` accepts; return how many."""
        return await self.drop(*await self.list(where=where))

    async def export(self, *, where: Where | None = None) -> AsyncIterator[str]:
        """Yield the letters, or those `where` accepts, as lines of JSON; see `Letter.as_dict`."""
        async for letter in self:
            if where is None or where(letter):
                yield json.dumps(letter.as_dict(), ensure_ascii=False)

    # Reading.

    async def _these(self, letters: Sequence[Letter | str]) -> Sequence[Letter]:
        wanted = {item for item in letters if isinstance(item, str)}
        by_position: dict[str, Letter] = {}
        if wanted:
            listed = await self.list(where=lambda letter: letter.position in wanted)
            by_position = {letter.position: letter for letter in listed}
            if missing := wanted - by_position.keys():
                raise NotFound(f"no dead letters {sorted(missing)} in {self._stored_in}")
        return [item if isinstance(item, Letter) else by_position[item] for item in letters]

    def _letter(self, position: str, message: Message) -> Letter:
        headers = message.headers
        group = headers.get(GROUP)
        return Letter(
            position=position,
            message=message,
            topic=headers.get(TOPIC, self._topic),
            group=self._group if group in (None, "broadcast") else group,
            reason=headers.get(REASON),
            attempts=number_of(headers.get(ATTEMPTS)),
            error_type=headers.get(ERROR_TYPE),
            error_message=headers.get(ERROR_MESSAGE),
            traceback=traceback_in(headers),
            first_seen=_time(headers.get(FIRST_SEEN)),
            failed_at=_time(headers.get(FAILED_AT)),
            history=tuple(history_of(headers)),
            reduced=tuple(headers.get(REDUCED, "").split()),
        )

    async def _settled(self) -> set[str]:
        """Return the marks of the letters that were redriven or discarded."""
        settled: set[str] = set()
        try:
            async for stored in self._access.browse(self._settlement_log()):
                settled.update(_marks(stored.message.body))
        except NotFound:
            return settled  # no letter was ever settled
        return settled

    def _settlement_log(self) -> TopicSpec:
        return settlement_log_spec(self._access.spec(self._stored_in))

    async def _declare_settlement_log(self) -> None:
        spec, declarations = self._settlement_log(), self._access.declarations
        declarations.learn_spec(spec)
        await self._access.call(declarations.declare(spec.name), f"declaring {spec.name}")

    # Settling: copy, confirm, then note.

    async def _redrive(self, pairs: Sequence[tuple[Letter, Message]]) -> int:
        if not pairs:
            return 0
        self._check([letter for letter, _ in pairs])
        await self._access.declarations.redeclare(self._topic)
        failures: list[BaseException] = []
        for chunk in _chunks(pairs):
            sent = [self._publish(self._copy(letter, message)) for letter, message in chunk]
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            done = [
                letter
                for (letter, _), outcome in zip(chunk, outcomes, strict=True)
                if not isinstance(outcome, BaseException)
            ]
            await self._note("redriven", done)
            failures += [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            if any(isinstance(failure, TransientError) for failure in failures):
                break
        if failures:
            raise failures[0]
        return len(pairs)

    def _check(self, letters: Sequence[Letter]) -> None:
        """Raise `StateError` for letters of another topic or group."""
        for letter in letters:
            if (letter.topic, letter.group) != (self._topic, self._group):
                raise StateError(
                    f"the letter {letter.position} is of {letter.topic!r} (group {letter.group}), "
                    f"not of {self._topic!r} (group {self._group})"
                )

    def _copy(self, letter: Letter, message: Message) -> tuple[Message, dict[str, str]]:
        headers = without_failure(message.headers, letter.as_dict())
        extra = {
            REDRIVEN: str(len(letter.history) + 1),
            ONLY_GROUP: BROADCAST_ONLY if self._group is None else self._group,
        }
        return replace(message, topic=self._topic, headers=headers), extra

    async def _note(self, what: str, letters: Sequence[Letter]) -> None:
        for chunk in _chunks(letters):
            body = [_mark(letter.position, letter.message.id) for letter in chunk]
            await self._declare_settlement_log()
            note = Message(
                id=new_id(),
                topic=settlement_log_topic(self._stored_in),
                body=json.dumps(body).encode(),
                content_type="application/json",
                type=f"anymq.dead-letter.{what}",
            )
            await self._publish((note, {}))

    async def _publish(self, copy: tuple[Message, dict[str, str]]) -> None:
        message, extra = copy
        record = encode(
            message, self._access.driver.binding, unique=copy_id("redriven", new_id()), extra=extra
        )
        await self._publisher.submit(record, self._timeout)


def _whole(letters: Sequence[Letter]) -> Sequence[Letter]:
    """Return `letters`; raises `StateError` if one is reduced."""
    for letter in letters:
        if letter.reduced:
            raise StateError(
                f"the letter {letter.position} was stored without its "
                f"{' and '.join(letter.reduced)}, which the broker refused: use redrive_edited"
            )
    return letters


def settlement_log_topic(stored_in: str) -> str:
    """Return the name of the settlement log of the dead letters in `stored_in`."""
    return f"{stored_in}._settled"


def settlement_log_spec(spec: TopicSpec) -> TopicSpec:
    """Return the settlement log of the dead letters in `spec`."""
    name = settlement_log_topic(spec.name)
    return TopicSpec(name=name, native=settlement_log_topic(spec.native), create=spec.create)


def _mark(position: str, id: str) -> str:
    return f"{position}|{id}"


def _marks(body: bytes) -> list[str]:
    """Return the marks in a note; none if it is no note."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _chunks(items: Sequence[T]) -> list[list[T]]:
    iterator = iter(items)
    return list(iter(lambda: list(islice(iterator, LETTERS_PER_CALL)), []))
