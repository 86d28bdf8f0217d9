"""State of an ordered group, and its reset to a position, for `Driver` methods of an adapter."""

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
    """Progress of a group in one partition.

    All records up to the position `cursor` are settled, and so are the positions in `done` above
    it. The lag is the number of records after the cursor, less `done`. `in_flight` counts the
    records delivered to the owner and not settled. `attempts` maps the position of each redelivered
    record to its attempts. `owner` is None while no live member owns the partition. `renewed` is
    the owner's wall clock at its last renewal, in seconds since the epoch.
    """

    owner: str | None
    cursor: str
    done: tuple[str, ...]
    in_flight: int
    attempts: Mapping[str, int]
    renewed: float | None


def cursor_of(value: str) -> str:
    """Return the cursor of the lease record with the text `value`."""
    return LeaseRecord.decode(value).cursor


async def state(log: PartitionedLog, *, clock: Clock = REAL) -> Mapping[int, PartitionState]:
    """Return the state of each partition; empty if the group does not exist."""
    cells = await log.load()
    return {number: _state(cell, clock) for number, cell in sorted(cells.items())}


async def seek(log: PartitionedLog, to: Start, *, clock: Clock = REAL) -> None:
    """Reset the group to `to` in every partition, and discard its settlements and attempts.

    Raises `NotFound` if the group does not exist, and `StateError` while a live member owns a
    partition. A member whose wall clock is wrong by more than a lease may be considered dead. It
    then loses its partitions, and takes them again from `to`.
    """
    cells = await log.load()
    if not cells:
        raise NotFound("the group does not exist")
    while cells:
        for cell in cells.values():
            record = LeaseRecord.decode(cell.value)
            if _is_owned(record, clock):
                raise StateError(f"the group has live members: {record.owner}")
        reset = {
            number: Cell(await _reset(log, number, cell, to), cell.revision)
            for number, cell in cells.items()
        }
        revisions = await log.save(reset)
        refused = {number for number, revision in revisions.items() if revision is None}
        cells = {n: cell for n, cell in (await log.load()).items() if n in refused}


async def _reset(log: PartitionedLog, number: int, cell: Cell, to: Start) -> str:
    epoch = LeaseRecord.decode(cell.value).epoch + 1
    return LeaseRecord(cursor=await log.cursor_at(number, to), epoch=epoch).encode()


def _is_owned(record: LeaseRecord, clock: Clock) -> bool:
    return bool(record.owner) and abs(clock.now() - record.time) < record.lease


def _attempts(record: LeaseRecord) -> dict[str, int]:
    in_flight = bool(record.delivered)
    attempts = {position: shown + in_flight for position, shown in record.attempts.items()}
    return {position: count for position, count in (attempts | record.kept).items() if count}


def _state(cell: Cell, clock: Clock) -> PartitionState:
    record = LeaseRecord.decode(cell.value)
    owned = _is_owned(record, clock)
    return PartitionState(
        owner=record.owner if owned else None,
        cursor=record.cursor,
        done=tuple(record.done),
        in_flight=max(0, record.ahead - len(record.done)) if owned else 0,
        attempts=_attempts(record),
        renewed=record.time or None,
    )
