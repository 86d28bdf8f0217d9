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
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
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
from ..tasks import uninterrupted
from ..topic import dead_letter_topic
from ..wire.cloudevents import encode
from ..wire.dead_letter_headers import FAILED_AT, without_failure
from ..wire.forged_headers import REDRIVEN
from .letter import Letter, letter_of
from .pace import paced
from .settlement_log import settlement_log_spec, settlement_log_topic
from .topic_access import Stored, TopicAccess

LETTERS_PER_CALL = 200
"""The most letters that are redriven or noted together."""

T = TypeVar("T")


Where = Callable[[Letter], bool]
Progress = Callable[[int], object]
"""Called with the number of letters that have just been redriven, discarded or restored."""
Failures = list[BaseException]
Copy = tuple[Message, Mapping[str, str]]
"""A message to publish, and its headers that no application may set."""


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

    @property
    def origin(self) -> tuple[str, str | None]:
        """The topic and the group (None: broadcast) that rejected the messages."""
        return self._topic, self._group

    @property
    def settlement_log(self) -> str:
        """The name of the settlement log, which notes the letters redriven and discarded.

        `Admin.topics` does not list it; `Admin.describe` and `Admin.browse` accept it.
        """
        return settlement_log_topic(self._stored_in)

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
                if mark_of(stored) in settled:
                    continue
                letter = self._letter(stored)
                if (letter.topic, letter.group) == (self._topic, self._group):
                    yield letter
        except NotFound:
            return  # no message was ever rejected

    def _letter(self, stored: Stored) -> Letter:
        return letter_of(
            stored.message, position=stored.position, topic=self._topic, group=self._group
        )

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

    async def redrive(
        self, *letters: Letter | str, rate: float | None = None, progress: Progress | None = None
    ) -> int:
        """Redrive `letters` (or those at the positions) to their group; return how many.

        Only this group gets them, as first attempts, at the end of the topic: same id, body, key
        and headers, a new deduplication id, and the failures so far in `anymq-dlq-history`.
        Letters of broadcast go to every broadcast subscriber of that time, and to no group. `rate`
        is the most letters each second.

        Raises `StateError`, and redrives nothing, if one is of another topic or group, or is
        `reduced`: give the missing part with `redrive_edited`. If the broker refuses some letters,
        it raises that error after redriving the others, which are no longer listed. If it is
        cancelled, it first awaits the confirmation of the copies that were published, and records
        it: each letter is then either listed or redriven.
        """
        pairs = [(item, item.message) for item in _whole(await self._these(letters))]
        return await self._redrive(pairs, rate=rate, progress=progress)

    async def redrive_all(
        self,
        *,
        where: Where | None = None,
        limit: int | None = None,
        rate: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Redrive all letters, or those `where` accepts, to `limit`; return how many.

        Letters that are `reduced` stay.
        """
        letters = await self.list(
            where=lambda letter: not letter.reduced and (where is None or where(letter)),
            limit=limit,
        )
        return await self.redrive(*letters, rate=rate, progress=progress)

    async def redrive_edited(
        self,
        letter: Letter | str,
        payload: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Redrive `letter` with another payload, and another key or headers where given.

        The id stays, so consumers see the same message, edited. `content_type` is that of a payload
        in bytes, which is binary data otherwise.
        """
        (found,) = await self._these((letter,))
        body, its_type = encode_payload(payload)
        edited = replace(found.message, body=body, content_type=content_type or its_type)
        if key is not None:
            edited = replace(edited, key=check_key(key))
        if headers is not None:
            kept = {name: v for name, v in edited.headers.items() if name.startswith(CONTROL)}
            edited = replace(edited, headers={**check_headers(headers), **kept})
        await self._redrive([(found, edited)])

    async def drop(self, *letters: Letter | str, progress: Progress | None = None) -> int:
        """Discard `letters` (or those at the positions); return how many.

        They are no longer listed. The broker keeps the bytes until the dead-letter topic's
        retention, or `Admin.purge`, removes them.
        """
        found = await self._these(letters)
        self._check(found)

        async def drop(chunk: Sequence[Letter]) -> Failures:
            await self._note("dropped", chunk)
            return []

        await self._in_chunks(found, drop, progress=progress)
        return len(found)

    async def drop_all(
        self,
        *,
        where: Where | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Discard all letters, or those `where` accepts, to `limit`; return how many."""
        return await self.drop(*await self.list(where=where, limit=limit), progress=progress)

    async def export(self, *, where: Where | None = None) -> AsyncIterator[str]:
        """Yield the letters, or those `where` accepts, as lines of JSON; see `Letter.as_dict`.

        `restore` stores them again, here or on another broker.
        """
        async for letter in self:
            if where is None or where(letter):
                yield json.dumps(letter.as_dict(), ensure_ascii=False)

    async def restore(self, letters: Sequence[Letter], *, progress: Progress | None = None) -> int:
        """Store letters from an export, see `Letter.from_dict`; return how many were stored.

        A letter keeps the id, body, key, headers and failure. One that is listed already is not
        stored again, so that a restore can be repeated; one that was redriven or discarded is.
        Raises `StateError`, and stores nothing, if one is of another topic or group. If the broker
        refuses some letters, it raises that error after storing the others.
        """
        missing = await self.missing(letters)
        if progress is not None:
            progress(len(letters) - len(missing))
        if missing:
            await self._access.declarations.redeclare(self._stored_in)
        await self._in_chunks(missing, self._store, progress=progress)
        return len(missing)

    async def missing(self, letters: Sequence[Letter]) -> Sequence[Letter]:
        """Return those of `letters` that are not listed, which `restore` would store."""
        self._check(letters)
        return _without(letters, Counter([_identity(letter) async for letter in self]))

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

    async def _settled(self) -> set[str]:
        """Return the marks of the letters that were redriven or discarded."""
        settled: set[str] = set()
        try:
            async for stored in self._access.browse(self._settlement_log()):
                settled.update(marks_in(stored.message.body))
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

    async def _redrive(
        self,
        pairs: Sequence[tuple[Letter, Message]],
        *,
        rate: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        self._check([letter for letter, _ in pairs])
        if pairs:
            await self._access.declarations.redeclare(self._topic)
        await self._in_chunks(pairs, self._move, rate=rate, progress=progress)
        return len(pairs)

    async def _in_chunks(
        self,
        items: Sequence[T],
        work: Callable[[Sequence[T]], Coroutine[Any, Any, Failures]],
        *,
        rate: float | None = None,
        progress: Progress | None,
    ) -> None:
        """Do `work` on chunks of `items`, each to its end; then raise its first failure.

        A transient failure ends it, because the others would most likely fail as well.
        """
        failures: Failures = []

        async def one(chunk: Sequence[T]) -> None:
            failed = await work(chunk)
            failures.extend(failed)
            if progress is not None:
                progress(len(chunk) - len(failed))

        async for chunk in paced(items, self._clock, rate=rate, largest=LETTERS_PER_CALL):
            await uninterrupted(one(chunk))
            if any(isinstance(failure, TransientError) for failure in failures):
                break
        if failures:
            raise failures[0]

    async def _move(self, pairs: Sequence[tuple[Letter, Message]]) -> Failures:
        """Publish the copies, and note the letters whose copies are confirmed."""
        outcomes = await self._publish_all([self._copy(*pair) for pair in pairs])
        done = [
            letter
            for (letter, _), outcome in zip(pairs, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        ]
        if done:
            await self._note("redriven", done)
        return _failures(outcomes)

    async def _store(self, letters: Sequence[Letter]) -> Failures:
        stored = [replace(letter.message, topic=self._stored_in) for letter in letters]
        return _failures(await self._publish_all([(message, {}) for message in stored]))

    def _check(self, letters: Sequence[Letter]) -> None:
        """Raise `StateError` for letters of another topic or group."""
        for letter in letters:
            if (letter.topic, letter.group) != (self._topic, self._group):
                raise StateError(
                    f"the letter {letter.position} is of {letter.topic!r} (group {letter.group}), "
                    f"not of {self._topic!r} (group {self._group})"
                )

    def _copy(self, letter: Letter, message: Message) -> Copy:
        headers = without_failure(message.headers, letter.as_dict())
        extra = {
            REDRIVEN: str(len(letter.history) + 1),
            ONLY_GROUP: BROADCAST_ONLY if self._group is None else self._group,
        }
        return replace(message, topic=self._topic, headers=headers), extra

    async def _note(self, what: str, letters: Sequence[Letter]) -> None:
        await self._declare_settlement_log()
        note = Message(
            id=new_id(),
            topic=settlement_log_topic(self._stored_in),
            body=json.dumps([mark_of(each) for each in letters]).encode(),
            content_type="application/json",
            type=f"anymq.dead-letter.{what}",
        )
        await self._publish((note, {}))

    async def _publish_all(self, copies: Sequence[Copy]) -> Sequence[BaseException | None]:
        sent = [self._publish(copy) for copy in copies]
        return await asyncio.gather(*sent, return_exceptions=True)

    async def _publish(self, copy: Copy) -> None:
        message, extra = copy
        # Not the message's own: the broker would take the copy for a repetition.
        unique = copy_id("redriven", new_id())
        record = encode(message, self._access.driver.binding, unique=unique, extra=extra)
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


def mark_of(letter: Stored | Letter) -> str:
    """Return the mark of a letter in the settlement log."""
    return f"{letter.position}|{letter.message.id}"


def marks_in(body: bytes) -> list[str]:
    """Return the marks in a note of the settlement log; none if it is no note."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _failures(outcomes: Iterable[BaseException | None]) -> Failures:
    return [outcome for outcome in outcomes if outcome is not None]


def _identity(letter: Letter) -> tuple[str | None, ...]:
    """Return what is equal for one letter and its restored copy, and for no other failure."""
    message = letter.message
    body = hashlib.sha256(message.body).hexdigest()
    return message.source or "anymq", message.id, message.headers.get(FAILED_AT), body


def _without(letters: Iterable[Letter], listed: Counter[tuple[str | None, ...]]) -> list[Letter]:
    """Return the letters that are not listed; as many of equal ones as are missing."""
    missing: list[Letter] = []
    for letter in letters:
        identity = _identity(letter)
        if listed[identity]:
            listed[identity] -= 1
        else:
            missing.append(letter)
    return missing
