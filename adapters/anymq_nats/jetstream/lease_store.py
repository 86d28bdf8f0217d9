"""Small durable state of groups: one message per cell, in a stream that keeps the latest of each.

`LeaseStore` keeps the lease records of ordered groups, `AttemptStore` attempts of unordered ones.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import nats.errors
import nats.js.errors

from anymq.driver import Cell, Outcome

from ..client.protocol import MESSAGE_ID, parse_headers
from ..connection import Connection
from ..messages import Publication
from ..publisher import Publisher
from ..topology import Consumer, Marker, purge
from .schema import cell_subject, cells_stream

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = (10071, 10164)
_MAX_CONCURRENT_READS = 50
_MAX_DIGITS = 9


class _Stored(NamedTuple):
    text: str
    sequence: int
    id: str


async def _read(connection: Connection, stream: str, subject: str) -> _Stored | None:
    """Return the latest message on `subject`, as the stream's leader knows it."""
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except nats.js.errors.NotFoundError:
        return None
    message = answer["message"]
    headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
    text = base64.b64decode(message.get("data", "")).decode("utf-8", "backslashreplace")
    return _Stored(text, int(message["seq"]), headers.get(MESSAGE_ID, ""))


class LeaseStore:
    """The cells of one incarnation of an ordered group. Revisions are sequences of their stream."""

    def __init__(self, connection: Connection, publisher: Publisher, marker: Marker) -> None:
        self._connection = connection
        self._publisher = publisher
        self._stream = cells_stream(marker.stream.name)
        self._subjects = [
            cell_subject(marker.stream.name, marker.name, marker.epoch, number)
            for number in range(marker.stream.partitions)
        ]
        self._writer = uuid.uuid4().hex

    async def load(self) -> Mapping[int, Cell]:
        """Return the existing cells by partition."""
        found = await asyncio.gather(*[self._get(n) for n in range(len(self._subjects))])
        return {n: Cell(item.text, item.sequence) for n, item in enumerate(found) if item}

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write the cells that no other member has changed; return each new revision, or None.

        After a lost answer the caller repeats the call with the revision that it knew. The cell
        then contains its own write, which its id shows, and is overwritten.
        """
        revisions = {number: cell.revision for number, cell in cells.items()}
        saved = await self._write(cells, revisions)
        refused = [number for number, revision in saved.items() if revision is None]
        own = {
            number: revision
            for number in refused
            if (revision := await self._own_revision(number, cells[number].revision)) is not None
        }
        return {**saved, **await self._write({n: cells[n] for n in own}, own)}

    async def _write(
        self, cells: Mapping[int, Cell], expected: Mapping[int, int]
    ) -> dict[int, int | None]:
        messages = [
            Publication(
                self._subjects[number],
                f"{self._id_prefix(cell.revision)}.{uuid.uuid4().hex}",
                cell.value.encode(),
                extra={_EXPECTED: str(expected[number])},
            )
            for number, cell in cells.items()
        ]
        outcomes = await self._publisher.send(messages)
        return {n: _revision(outcome) for n, outcome in zip(cells, outcomes, strict=True)}

    def _id_prefix(self, revision: int) -> str:
        """Return the start of the ids of this store's writes over `revision`."""
        return f"{self._writer}.{revision}"

    async def _own_revision(self, number: int, revision: int) -> int | None:
        """Return the revision of a cell if this store wrote it over `revision`."""
        found = await self._get(number)
        own = found is not None and found.id.startswith(f"{self._id_prefix(revision)}.")
        return found.sequence if found is not None and own else None

    async def _get(self, number: int) -> _Stored | None:
        return await _read(self._connection, self._stream, self._subjects[number])


def _revision(outcome: Outcome) -> int | None:
    if isinstance(outcome, nats.js.errors.APIError) and outcome.err_code in _WRONG_SEQUENCE:
        return None
    if isinstance(outcome, str):
        return int(outcome)
    raise outcome or nats.js.errors.NoStreamResponseError()


class AttemptStore:
    """The attempts of a group's messages whose handlers have started, by stream sequence.

    The server counts deliveries, whether a handler has started or not. `make` creates the stream
    of cells, unless it exists.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        consumer: Consumer,
        make: Callable[[], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._consumer = consumer
        self._stream = cells_stream(consumer.stream.name)
        self._make = make
        self._made = False

    async def save(self, attempts: Mapping[str, int]) -> None:
        """Store these attempts durably; raises the first failure."""
        if not self._made:
            await self._make()
            self._made = True
        outcomes = await self._publisher.send(
            [
                Publication(self._subject(position), uuid.uuid4().hex, str(attempt).encode())
                for position, attempt in attempts.items()
            ]
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._made = False
                raise outcome

    async def load(self, positions: Sequence[str]) -> list[int]:
        """Return the stored attempt of each position, 0 without one."""
        found: list[int] = []
        for start in range(0, len(positions), _MAX_CONCURRENT_READS):
            some = positions[start : start + _MAX_CONCURRENT_READS]
            found += await asyncio.gather(*[self._get(position) for position in some])
        return found

    async def delete(self, positions: Iterable[str]) -> None:
        """Delete the attempts of settled messages."""
        subjects = [self._subject(position) for position in positions]
        try:
            await asyncio.gather(*[purge(self._connection, self._stream, one) for one in subjects])
        except (nats.errors.Error, OSError):
            return  # nothing reads the attempts of settled messages

    async def _get(self, position: str) -> int:
        found = await _read(self._connection, self._stream, self._subject(position))
        text = found.text if found is not None else ""
        digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        return int(text) if digits else 0

    def _subject(self, position: str) -> str:
        return cell_subject(self._consumer.stream.name, self._consumer.name, "starts", position)
