"""`OwnedPartition`: the in-memory state of one partition while one member owns it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..records import Due, Received
from .lease_record import LeaseRecord


class OwnedPartition:
    """The records of one partition that its owner has read, delivered and settled.

    The state continues from `before`, the lease record that the previous owner left. `lease_record`
    returns the record to store next. `revision` and `wanted` are those of the stored record as last
    seen, and `renewed` is the monotonic time before the last confirmed write.

    `dirty`: the stored record is out of date. `leaving`: no more records are dispatched. `left`:
    the handlers have ended, and the next write frees the partition. `gone`: this member no longer
    owns the partition, and later calls are ignored.
    """

    __slots__ = (
        "_beat",
        "_begun",
        "_certain",
        "_counting",
        "_delivered",
        "_doubtful",
        "_due",
        "_inherited",
        "_inherited_attempts",
        "_inherited_done",
        "_inherited_due",
        "_inherited_kept",
        "_kept",
        "_known",
        "_read",
        "_settled",
        "_shown",
        "_unsettled",
        "cursor",
        "dirty",
        "epoch",
        "gone",
        "leaving",
        "left",
        "number",
        "renewed",
        "revision",
        "wanted",
    )

    def __init__(self, number: int, before: LeaseRecord, revision: int, renewed: float) -> None:
        self.number = number
        self.epoch = before.epoch
        self.revision = revision
        self.renewed = renewed
        self.wanted = before.wanted
        self.dirty = self.leaving = self.left = self.gone = False
        self.cursor = before.cursor
        self._beat = before.beat
        # Records that earlier owners read and this one has not: their number and their state.
        # `_counting`: deliveries up to `_delivered` may have been in a handler of a crashed owner.
        self._inherited = before.ahead
        self._delivered = before.delivered
        self._counting = bool(before.delivered) and before.ahead > 0
        self._inherited_done = dict.fromkeys(before.done)
        self._inherited_attempts = dict(before.attempts)
        self._inherited_kept = dict(before.kept)
        self._inherited_due = dict(before.due)
        # Positions read by this owner, in order. Each is unsettled or settled.
        self._read: deque[str] = deque()
        self._unsettled: set[str] = set()
        self._settled: dict[str, None] = {}
        # Earlier deliveries by position: shown with this delivery, and to show with the next one.
        self._shown: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        # Earlier deliveries of positions that a crashed owner may have started, as far as they are
        # known; and those to show next for positions in a handler now, unless this member leaves.
        self._known: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        # Of `_known`: the positions whose last start is unknown, and the counts that are certain.
        # Both pass to the next owner, until a handler starts.
        self._doubtful: set[str] = set()
        self._certain: dict[str, int] = {}
        self._due: dict[str, Sequence[float]] = {}

    @property
    def read_cursor(self) -> str:
        """The position after which reading continues."""
        return self._read[-1] if self._read else self.cursor

    @property
    def span(self) -> int:
        """The number of positions read above the cursor."""
        return len(self._read)

    @property
    def dispatching(self) -> bool:
        """Whether records of this partition may still be dispatched."""
        return not (self.gone or self.leaving)

    def add(self, record: Received) -> bool:
        """Add a record that was read; return False if an earlier owner has settled it.

        Sets the record's token, its count of earlier deliveries, and its due time.
        """
        position = record.position
        self._read.append(position)
        self.dirty = True
        settled = self._inherited > 0 and position in self._inherited_done
        if settled:
            self._settled[position] = None
        else:
            kept = self._inherited_kept.get(position)
            shown = self._inherited_attempts.get(position, 0) if kept is None else kept
            record.redeliveries = shown
            record.token = self, position
            self._unsettled.add(position)
            if shown:
                self._shown[position] = shown
            if self._counting:
                self._known[position] = shown
                if kept is None:
                    self._doubtful.add(position)
                    record.redeliveries += 1
                else:
                    self._certain[position] = shown
            if position in self._inherited_due:
                self._due[position] = self._inherited_due[position]
                record.not_before = Due(*self._inherited_due[position])
        if self._inherited:
            self._drop_inherited(position)
        if settled:
            self._advance()
        return not settled

    def settle(self, position: str) -> None:
        """Settle the record at `position`; ignored if it is settled or not owned any more."""
        if self.gone or position not in self._unsettled:
            return
        self._unsettled.remove(position)
        self._shown.pop(position, None)
        self._kept.pop(position, None)
        self._known.pop(position, None)
        self._begun.pop(position, None)
        self._doubtful.discard(position)
        self._certain.pop(position, None)
        self._due.pop(position, None)
        self._settled[position] = None
        self.dirty = True
        self._advance()

    def keep(self, position: str, redeliveries: int, due: Due | None) -> None:
        """Have the next delivery of `position`, by any member, show `redeliveries` and `due`."""
        if not self.gone and position in self._unsettled:
            self._kept[position] = redeliveries
            self._begun.pop(position, None)  # `redeliveries` counts that start.
            self._doubtful.discard(position)
            self._due.pop(position, None)
            if due is not None:
                self._due[position] = due
            self.dirty = True

    def known(self, position: str) -> int | None:
        """Return the earlier deliveries known to have started; None if all of them have."""
        return self._known.get(position)

    def begin(self, position: str, redeliveries: int) -> None:
        """Note that a handler starts: if this member crashes, the next delivery shows that."""
        if not self.gone and position in self._unsettled:
            self._begun[position] = redeliveries
            self.dirty = True

    def lease_record(self, owner: str, *, lease: float, now: float) -> LeaseRecord:
        """Return the record to store now; once `left`, one that frees the partition."""
        self._beat += 1
        delivered = self._last_delivered()
        return LeaseRecord(
            cursor=self.cursor,
            owner="" if self.left else owner,
            wanted=self.wanted,
            epoch=self.epoch + self.left,
            beat=self._beat,
            lease=lease,
            time=now,
            delivered=delivered,
            ahead=len(self._read) + self._inherited,
            done=[*self._settled, *self._inherited_done],
            attempts={**self._inherited_attempts, **self._shown},
            kept={
                **self._inherited_kept,
                **(self._uncounted(delivered) if self.left else self._certain),
                **self._kept,
                **({} if self.left else self._begun),
            },
            due={**self._inherited_due, **self._due},
        )

    def _last_delivered(self) -> str:
        """Return the last position that a crashed owner may have started; empty if there is none.

        While this member owns the partition, it may be the one that crashes.
        """
        if self._counting:
            return self._delivered
        if not self.left:
            return self._read[-1] if self._unsettled else ""
        return next((item for item in reversed(self._read) if item in self._doubtful), "")

    def _uncounted(self, delivered: str) -> dict[str, int]:
        """Return the counts of unsettled positions up to `delivered` that are certain on leaving.

        Without them the next owner would count a delivery that ended cleanly.
        """
        counts: dict[str, int] = {}
        for position in self._read if delivered else ():
            if position in self._unsettled and position not in self._doubtful:
                counts[position] = self._shown.get(position, 0)
            if position == delivered:
                break
        return counts

    def _drop_inherited(self, position: str) -> None:
        """Drop the inherited state of `position`, and after the last one all that is left."""
        self._inherited -= 1
        self._inherited_done.pop(position, None)
        self._inherited_attempts.pop(position, None)
        self._inherited_kept.pop(position, None)
        self._inherited_due.pop(position, None)
        if position == self._delivered:
            self._counting = False
            if not (
                self._inherited_done
                or self._inherited_attempts
                or self._inherited_kept
                or self._inherited_due
            ):
                self._inherited = 0  # The rest was trimmed from the log.
        if self._inherited == 0:
            self._counting = False
            self._inherited_done.clear()
            self._inherited_attempts.clear()
            self._inherited_kept.clear()
            self._inherited_due.clear()

    def _advance(self) -> None:
        read, settled = self._read, self._settled
        while read and read[0] in settled:
            self.cursor = read.popleft()
            del settled[self.cursor]
