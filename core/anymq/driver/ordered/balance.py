"""Who should read which partition: decided by every member for itself, from the same cells.

A partition is asked for when its owner has at least two more than the asker, and given up on the
same condition: when everybody has done so, the shares differ by one at most, and nothing moves any
more. A member that finds nothing to ask for needs no place in anybody's books.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PartitionView:
    """A partition as a member sees it.

    `owner` is empty unless somebody alive reads it. `wanted` asks an owner for it; without an
    owner it is kept for `wanted`, and without both it is anybody's.
    """

    owner: str = ""
    wanted: str = ""


@dataclass(slots=True)
class Moves:
    """What a member should do now: take, ask for, give up, and what it should not give up."""

    take: set[int] = field(default_factory=set)
    ask: set[int] = field(default_factory=set)
    give: set[int] = field(default_factory=set)
    refuse: set[int] = field(default_factory=set)


def plan(views: Mapping[int, PartitionView], me: str) -> Moves:
    """Return what `me` should do about the partitions `views`."""
    decided = Moves()
    shares = Counter(view.owner or view.wanted for view in views.values())
    del shares[""]
    _take(views, me, shares, decided)
    _give(views, me, shares, decided)
    _ask(views, me, shares, decided)
    return decided


def _take(
    views: Mapping[int, PartitionView], me: str, shares: Counter[str], decided: Moves
) -> None:
    """Take what is kept for me, and of what is anybody's a fair share."""
    members = {me, *shares, *(view.wanted for view in views.values() if view.wanted)}
    fair = -(-len(views) // len(members))
    for number, view in views.items():
        if view.owner:
            continue
        if view.wanted == me:
            decided.take.add(number)
        elif not view.wanted and shares[me] < fair:
            decided.take.add(number)
            shares[me] += 1


def _give(
    views: Mapping[int, PartitionView], me: str, shares: Counter[str], decided: Moves
) -> None:
    """Give to those that ask and have less, the poorest first."""
    asked = {number for number, view in views.items() if view.owner == me and view.wanted}
    while asked:
        number = min(asked, key=lambda number: (shares[views[number].wanted], number))
        asked.remove(number)
        asker = views[number].wanted
        if asker != me and shares[me] >= shares[asker] + 2:
            decided.give.add(number)
            shares[me] -= 1
            shares[asker] += 1
        else:
            decided.refuse.add(number)


def _ask(views: Mapping[int, PartitionView], me: str, shares: Counter[str], decided: Moves) -> None:
    """Ask the richest for one after the other, as if all that has been asked for were given."""
    left: dict[str, list[int]] = {}
    for number, view in views.items():
        if view.owner in ("", me):
            continue
        if view.wanted:
            shares[view.owner] -= 1
            shares[view.wanted] += 1
        else:
            left.setdefault(view.owner, []).append(number)
    while left:
        richest = max(left, key=lambda owner: shares[owner])
        if shares[richest] < shares[me] + 2:
            return
        number = random.choice(left[richest])
        left[richest].remove(number)
        if not left[richest]:
            del left[richest]
        decided.ask.add(number)
        shares[richest] -= 1
        shares[me] += 1
