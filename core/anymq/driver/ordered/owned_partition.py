"""A partition in one member's hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..records import Due, Received
from .lease_record import LeaseRecord


class OwnedPartition:
    """What has been read, handed out and done in one partition while one member owns it.

    It goes on from the cell's content as the member before left it. `note` and `content` are
    what becomes of records and of the cell; the rest is the lease: `revision` and `wanted` as last
    seen, `renewed` the monotonic time before the last write that was confirmed. `dirty` means that
    the cell does not say everything yet, `leaving` that nothing more is handed out, `left` that its
    handlers have ended, and `gone` that it is ours no more: whatever is said to it then has no
    effect on anybody.
    """

    __slots__ = (
        "_attempts",
        "_beat",
        "_begun",
        "_certain",
        "_counting",
        "_delivered",
        "_done",
        "_doubtful",
        "_due",
        "_exact",
        "_inherited",
        "_kept",
        "_known",
        "_open",
        "_order",
        "_shown",
        "_skip",
        "_waits",
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
        # What members before us handed out and nobody has read since.
        self._inherited = before.ahead
        self._delivered = before.delivered
        self._counting = bool(before.delivered) and before.ahead > 0
        self._skip = dict.fromkeys(before.done)
        self._attempts = dict(before.attempts)
        self._exact = dict(before.kept)
        self._waits = dict(before.due)
        # What we have read, in order; each place is open or done.
        self._order: deque[str] = deque()
        self._open: set[str] = set()
        self._done: dict[str, None] = {}
        self._shown: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        # Which members that may have died had been handed, with the starts that are known; and
        # what the next delivery shows of those with a handler, unless we leave.
        self._known: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        # Of those: the places whose last start is unknown, and the ones whose count is certain.
        # Both outlive a change of the owner, until a handler begins.
        self._doubtful: set[str] = set()
        self._certain: dict[str, int] = {}
        self._due: dict[str, Sequence[float]] = {}

    @property
    def behind(self) -> str:
        """The place behind which reading goes on."""
        return self._order[-1] if self._order else self.cursor

    @property
    def span(self) -> int:
        """How many places have been read above the cursor."""
        return len(self._order)

    @property
    def handing_out(self) -> bool:
        """Whether records of this partition may still be handed out."""
        return not (self.gone or self.leaving)

    def take(self, record: Received) -> bool:
        """Note that `record` was read, and what is known of it; False if it is done already."""
        place = record.position
        self._order.append(place)
        self.dirty = True
        done = self._inherited > 0 and place in self._skip
        if done:
            self._done[place] = None
        else:
            exact = self._exact.get(place)
            shown = self._attempts.get(place, 0) if exact is None else exact
            record.redeliveries = shown
            record.token = self, place
            self._open.add(place)
            if shown:
                self._shown[place] = shown
            if self._counting:
                self._known[place] = shown
                if exact is None:
                    self._doubtful.add(place)
                    record.redeliveries += 1
                else:
                    self._certain[place] = shown
            if place in self._waits:
                self._due[place] = self._waits[place]
                record.not_before = Due(*self._waits[place])
        if self._inherited:
            self._inherit(place)
        if done:
            self._advance()
        return not done

    def done(self, place: str) -> None:
        """The record at `place` is settled; no effect if it was, or is not ours to settle."""
        if self.gone or place not in self._open:
            return
        self._open.remove(place)
        self._shown.pop(place, None)
        self._kept.pop(place, None)
        self._known.pop(place, None)
        self._begun.pop(place, None)
        self._doubtful.discard(place)
        self._certain.pop(place, None)
        self._due.pop(place, None)
        self._done[place] = None
        self.dirty = True
        self._advance()

    def keep(self, place: str, redeliveries: int, due: Due | None) -> None:
        """Let the next delivery of `place`, by whomever, show so many earlier ones, and `due`."""
        if not self.gone and place in self._open:
            self._kept[place] = redeliveries
            self._begun.pop(place, None)  # that start is counted in it
            self._doubtful.discard(place)
            self._due.pop(place, None)
            if due is not None:
                self._due[place] = due
            self.dirty = True

    def known(self, place: str) -> int | None:
        """How many earlier deliveries are known to have begun; None if all of them have."""
        return self._known.get(place)

    def begin(self, place: str, redeliveries: int) -> None:
        """The same, unless this member leaves: a handler begins with `place`."""
        if not self.gone and place in self._open:
            self._begun[place] = redeliveries
            self.dirty = True

    def content(self, owner: str, *, lease: float, now: float) -> LeaseRecord:
        """Return what the cell is to say now; once `left`, that the partition is free."""
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
            ahead=len(self._order) + self._inherited,
            done=[*self._done, *self._skip],
            attempts={**self._attempts, **self._shown},
            kept={
                **self._exact,
                **(self._given_back(delivered) if self.left else self._certain),
                **self._kept,
                **({} if self.left else self._begun),
            },
            due={**self._waits, **self._due},
        )

    def _last_delivered(self) -> str:
        """The last place of which a member that may have died may have begun a handler."""
        if self._counting:
            return self._delivered
        if not self.left:
            return self._order[-1] if self._open else ""
        return next((place for place in reversed(self._order) if place in self._doubtful), "")

    def _given_back(self, delivered: str) -> dict[str, int]:
        """What we leave unsettled, where the next owner would be in doubt and need not be."""
        found: dict[str, int] = {}
        for place in self._order if delivered else ():
            if place in self._open and place not in self._doubtful:
                found[place] = self._shown.get(place, 0)
            if place == delivered:
                break
        return found

    def _inherit(self, place: str) -> None:
        """One place less of what members before us handed out; then nothing of theirs is left."""
        self._inherited -= 1
        self._skip.pop(place, None)
        self._attempts.pop(place, None)
        self._exact.pop(place, None)
        self._waits.pop(place, None)
        if place == self._delivered:
            self._counting = False
            if not (self._skip or self._attempts or self._exact or self._waits):
                self._inherited = 0  # some were trimmed and never came
        if self._inherited == 0:
            self._counting = False
            self._skip.clear()
            self._attempts.clear()
            self._exact.clear()
            self._waits.clear()

    def _advance(self) -> None:
        order, done = self._order, self._done
        while order and order[0] in done:
            self.cursor = order.popleft()
            del done[self.cursor]
