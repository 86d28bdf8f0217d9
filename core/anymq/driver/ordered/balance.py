"""Decentralised partition balancing: every member decides for itself from the same lease records.

A member requests a partition from an owner that has at least two more than itself. The owner grants
it on the same condition. Shares then differ by at most one, and nothing moves. A member that has
nothing to request appears in no lease record, so members beyond the partition count need no
registration.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One partition from the viewpoint of a member.

    `owner` is empty unless a live member owns the partition. `wanted` requests it from its owner;
    without an owner, the partition is reserved for `wanted`. If both are empty, any member may take
    it.
    """

    owner: str = ""
    wanted: str = ""


@dataclass(slots=True)
class Moves:
    """The partitions that a member takes, requests, grants and refuses to grant."""

    take: set[int] = field(default_factory=set)
    request: set[int] = field(default_factory=set)
    grant: set[int] = field(default_factory=set)
    refuse: set[int] = field(default_factory=set)


def plan(views: Mapping[int, PartitionView], member: str) -> Moves:
    """Return the moves that `member` makes now."""
    moves = Moves()
    shares = Counter(view.owner or view.wanted for view in views.values())
    del shares[""]
    _take(views, member, shares, moves)
    _grant(views, member, shares, moves)
    _request(views, member, shares, moves)
    return moves


def _take(
    views: Mapping[int, PartitionView], member: str, shares: Counter[str], moves: Moves
) -> None:
    """Take the partitions reserved for `member`, and a fair share of the free ones."""
    members = {member, *shares, *(view.wanted for view in views.values() if view.wanted)}
    fair = -(-len(views) // len(members))
    for number, view in views.items():
        if view.owner:
            continue
        if view.wanted == member:
            moves.take.add(number)
        elif not view.wanted and shares[member] < fair:
            moves.take.add(number)
            shares[member] += 1


def _grant(
    views: Mapping[int, PartitionView], member: str, shares: Counter[str], moves: Moves
) -> None:
    """Grant requests of members that have at least two fewer, the smallest share first."""
    requested = {number for number, view in views.items() if view.owner == member and view.wanted}
    while requested:
        number = min(requested, key=lambda number: (shares[views[number].wanted], number))
        requested.remove(number)
        requester = views[number].wanted
        if requester != member and shares[member] >= shares[requester] + 2:
            moves.grant.add(number)
            shares[member] -= 1
            shares[requester] += 1
        else:
            moves.refuse.add(number)


def _request(
    views: Mapping[int, PartitionView], member: str, shares: Counter[str], moves: Moves
) -> None:
    """Request partitions from the largest owners, as if every open request were granted."""
    available: dict[str, list[int]] = {}
    for number, view in views.items():
        if view.owner in ("", member):
            continue
        if view.wanted:
            shares[view.owner] -= 1
            shares[view.wanted] += 1
        else:
            available.setdefault(view.owner, []).append(number)
    while available:
        largest = max(available, key=lambda owner: shares[owner])
        if shares[largest] < shares[member] + 2:
            return
        number = random.choice(available[largest])
        available[largest].remove(number)
        if not available[largest]:
            del available[largest]
        moves.request.add(number)
        shares[largest] -= 1
        shares[member] += 1
