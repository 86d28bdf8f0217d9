"""Looking at an ordered group, and moving it, from outside: for an adapter's describe and seek."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import NotFound, StateError
from ..clock import REAL, Clock
from ..specs import Start
from .lease_record import LeaseRecord
from .log import Cell, PartitionedLog


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """How far a group is in one partition.

    Everything up to the place `cursor` is done, and `done` above it: what lies behind the cursor,
    less `done`, is the lag. `in_flight` counts what its owner was handed and has not settled.
    `attempts` gives, by place, how often a record was tried, for those that came back.
    `owner` is None while nobody alive reads the partition; `renewed` is when the owner last said
    it lives, by its wall clock, in seconds since the epoch.
    """

    owner: str | None
    cursor: str
    done: tuple[str, ...]
    in_flight: int
    attempts: Mapping[str, int]
    renewed: float | None


def cursor_of(value: str) -> str:
    """Return the place in the cell's text `value` up to which everything is done."""
    return LeaseRecord.decode(value).cursor


async def state(log: PartitionedLog, *, clock: Clock = REAL) -> Mapping[int, PartitionState]:
    """Return how far the group is, by partition; empty if there is no such group."""
    cells = await log.load()
    return {number: _described(cell, clock) for number, cell in sorted(cells.items())}


async def seek(log: PartitionedLog, to: Start, *, clock: Clock = REAL) -> None:
    """Let the group begin anew at `to` in every partition; what was done or failed is forgotten.

    Raises `NotFound` without such a group and `StateError` while a member that lives owns any of
    it. A member whose wall clock is wrong by more than a lease may be taken for dead: it loses its
    partitions then and takes them again, from `to`.
    """
    cells = await log.load()
    if not cells:
        raise NotFound("there is no such group")
    while cells:
        for cell in cells.values():
            content = LeaseRecord.decode(cell.value)
            if _lives(content, clock):
                raise StateError(f"the group has live members: {content.owner}")
        moved = {
            number: Cell(await _moved(log, number, cell, to), cell.revision)
            for number, cell in cells.items()
        }
        answers = await log.save(moved)
        refused = {number for number, revision in answers.items() if revision is None}
        cells = {n: cell for n, cell in (await log.load()).items() if n in refused}


async def _moved(log: PartitionedLog, number: int, cell: Cell, to: Start) -> str:
    epoch = LeaseRecord.decode(cell.value).epoch + 1
    return LeaseRecord(cursor=await log.place(number, to), epoch=epoch).encode()


def _lives(content: LeaseRecord, clock: Clock) -> bool:
    return bool(content.owner) and abs(clock.now() - content.time) < content.lease


def _tries(content: LeaseRecord) -> dict[str, int]:
    under_way = bool(content.delivered)
    tries = {place: shown + under_way for place, shown in content.attempts.items()}
    return {place: number for place, number in (tries | content.kept).items() if number}


def _described(cell: Cell, clock: Clock) -> PartitionState:
    content = LeaseRecord.decode(cell.value)
    owned = _lives(content, clock)
    return PartitionState(
        owner=content.owner if owned else None,
        cursor=content.cursor,
        done=tuple(content.done),
        in_flight=max(0, content.ahead - len(content.done)) if owned else 0,
        attempts=_tries(content),
        renewed=content.time or None,
    )
