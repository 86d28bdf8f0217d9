"""Cells of ordered groups: one message a partition in a stream that keeps the latest of each."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Mapping

import nats.js.errors

from anymq.driver import Cell, Outcome

from ..client.protocol import MESSAGE_ID, parse_headers
from ..connection import Link
from ..groups import Marker
from ..outgoing import Outgoing
from ..publisher import Publisher
from .schema import cell_subject, cells_stream

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_CHANGED = (10071, 10164)


class Cells:
    """The cells of one incarnation of a group. Revisions are sequences of their stream."""

    def __init__(self, link: Link, publisher: Publisher, marker: Marker) -> None:
        self._link = link
        self._publisher = publisher
        self._stream = cells_stream(marker.stream.name)
        self._subjects = [
            cell_subject(marker.stream.name, marker.name, marker.epoch, number)
            for number in range(marker.stream.partitions)
        ]
        self._writer = uuid.uuid4().hex

    async def load(self) -> Mapping[int, Cell]:
        """Return the cells that there are, by partition, as their stream's leader knows them."""
        found = await asyncio.gather(*[self._get(n) for n in range(len(self._subjects))])
        return {n: Cell(*said[:2]) for n, said in enumerate(found) if said is not None}

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        """Write the cells that nobody else has changed; for each its new revision, or None.

        After a lost answer the caller repeats the call with the revision it knew. What is there
        then is its own write, which says so, and is written over.
        """
        revisions = {number: cell.revision for number, cell in cells.items()}
        saved = await self._write(cells, revisions)
        refused = [number for number, revision in saved.items() if revision is None]
        mine = {
            number: revision
            for number in refused
            if (revision := await self._written_over(number, cells[number].revision)) is not None
        }
        return {**saved, **await self._write({n: cells[n] for n in mine}, mine)}

    async def _write(
        self, cells: Mapping[int, Cell], expected: Mapping[int, int]
    ) -> dict[int, int | None]:
        messages = [
            Outgoing(
                self._subjects[number],
                f"{self._writing(cell.revision)}.{uuid.uuid4().hex}",
                cell.value.encode(),
                extra={_EXPECTED: str(expected[number])},
            )
            for number, cell in cells.items()
        ]
        outcomes = await self._publisher.send(messages)
        return {n: _revision(outcome) for n, outcome in zip(cells, outcomes, strict=True)}

    def _writing(self, revision: int) -> str:
        """Return how the ids of our writes over `revision` begin."""
        return f"{self._writer}.{revision}"

    async def _written_over(self, number: int, revision: int) -> int | None:
        """Return the revision of a cell if it is ours, written over `revision`."""
        said = await self._get(number)
        return said[1] if said and said[2].startswith(f"{self._writing(revision)}.") else None

    async def _get(self, number: int) -> tuple[str, int, str] | None:
        """Return a cell's text, its revision, and the id of its write."""
        try:
            body = {"last_by_subj": self._subjects[number]}
            answer = await self._link.api(f"STREAM.MSG.GET.{self._stream}", body)
        except nats.js.errors.NotFoundError:
            return None
        message = answer["message"]
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        text = base64.b64decode(message.get("data", "")).decode()
        return text, int(message["seq"]), headers.get(MESSAGE_ID, "")


def _revision(outcome: Outcome) -> int | None:
    if isinstance(outcome, nats.js.errors.APIError) and outcome.err_code in _CHANGED:
        return None
    if isinstance(outcome, str):
        return int(outcome)
    raise outcome or nats.js.errors.NoStreamResponseError()
