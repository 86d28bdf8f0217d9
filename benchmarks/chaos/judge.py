"""Checks of the journals as pure functions, after Jepsen's total-queue and log checkers.

Events, each with `at` and `by`; producer, consumer and nemesis record them:
- `attempt`, `confirmed`, `failed`: a publish (`id`, `key`, `number`; `cause` of a failure)
- `delivered`, `done`: begin and end of a handler call (`id`, `key`, `number`, `attempt`)
- `applied`, `noted`: the handler's effect, and its completion in the idempotency store
- `letter`: a message received from the dead-letter topic
- `heard`: a message handled by a broadcast subscriber
- `call`: a public await, with its duration `took` and its `limit`
- `died`: the process `who` was killed
- `rss`: resident memory in `bytes`
- `cut`, `healed`: begin and end of a fault
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .journal import Event

SLACK = 1.0
"""Seconds that a call may outlast its limit."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Messages published and delivered. Valid if none is `lost` or `unexpected`."""

    attempted: int
    acknowledged: int
    lost: list[str]
    """Confirmed and never delivered."""
    unexpected: list[str]
    """Delivered and never published."""
    duplicated: int
    """Delivered more than once, which at-least-once delivery allows."""
    recovered: int
    """Delivered although the publish failed, which was ambiguous."""


def queue(events: Iterable[Event]) -> Queue:
    """Compare published with delivered messages; a dead letter counts as delivered."""
    attempted: set[str] = set()
    confirmed: set[str] = set()
    failed: set[str] = set()
    arrivals: dict[str, int] = defaultdict(int)
    sets = {"attempt": attempted, "confirmed": confirmed, "failed": failed}
    letters: set[str] = set()
    for event in events:
        kind = event["event"]
        if kind in sets:
            sets[kind].add(event["id"])
        elif kind == "delivered":
            arrivals[event["id"]] += 1
        elif kind == "letter":
            letters.add(event["id"])
    arrived = arrivals.keys() | letters
    return Queue(
        attempted=len(attempted),
        acknowledged=len(confirmed),
        lost=sorted(confirmed - arrived),
        unexpected=sorted(arrived - attempted),
        duplicated=sum(count > 1 for count in arrivals.values()),
        recovered=len((failed - confirmed) & arrived),
    )


@dataclass(frozen=True, slots=True)
class Effects:
    """Effects of handlers. Valid if none is in `twice` or `missing`."""

    applied: int
    twice: list[str]
    """Applied again after completion was recorded, or while the first handler was running."""
    missing: list[str]
    """Completed without an effect."""
    in_gap: int
    """Applied again because the process died between effect and completion."""
    committed: int = 0
    """Effects committed with their completion, which closes the crash window."""
    committed_twice: list[str] = field(default_factory=list[str])


def effects(events: Sequence[Event], rows: Sequence[str] = ()) -> Effects:
    """Check that each id was `applied` once, unless its process died before `noted`.

    `rows` are the ids of effects committed with their completion; none may appear twice.
    """
    runs: dict[str, list[tuple[float, str]]] = defaultdict(list)
    noted: dict[str, float] = {}
    died = _deaths(events)
    for event in events:
        if event["event"] == "applied":
            runs[event["id"]].append((event["at"], event["by"]))
        elif event["event"] == "noted":
            noted.setdefault(event["id"], event["at"])
    twice: list[str] = []
    in_gap = 0
    for id, times in runs.items():
        if len(times) == 1:
            continue
        *earlier, (last, _) = sorted(times)
        cut_off = all(by in died and died[by] <= last for _, by in earlier)
        if cut_off and noted.get(id, math.inf) >= last:
            in_gap += 1
        else:
            twice.append(id)
    counts = Counter(rows)
    return Effects(
        applied=len(runs),
        twice=sorted(twice),
        missing=sorted(noted.keys() - runs.keys()),
        in_gap=in_gap,
        committed=len(counts),
        committed_twice=sorted(id for id, count in counts.items() if count > 1),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """Order within keys. Valid without `inversions` and `overlaps`."""

    keys: int
    inversions: list[str]
    """Ids first delivered after the first delivery of a later message of their key."""
    overlaps: list[str]
    """Ids handled while another message of their key was being handled."""


def order(events: Sequence[Event]) -> Order:
    """Check the first deliveries of each key, and that its messages were handled one at a time.

    Only confirmed publishes count, because a failed one may be stored late or twice. `events` are
    in order of time.
    """
    confirmed = {event["id"] for event in events if event["event"] == "confirmed"}
    newest: dict[str, int] = {}
    seen: set[str] = set()
    inversions: list[str] = []
    for event in events:
        if event["event"] != "delivered":
            continue
        id: str = event["id"]
        if id in seen or id not in confirmed:
            continue
        seen.add(id)
        key = event["key"]
        if event["number"] < newest.get(key, -1):
            inversions.append(id)
        newest[key] = max(newest.get(key, -1), event["number"])
    return Order(len(newest), inversions, _overlaps(events))


def _overlaps(events: Sequence[Event]) -> list[str]:
    """Return the ids delivered while another message of their key was being handled.

    A handler without an end is over when its process dies.
    """
    died = _deaths(events)
    inside: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    found: list[str] = []
    for event in events:
        if event["event"] == "delivered":
            others = inside[event["key"]]
            for (by, id), _ in list(others.items()):
                if by in died and died[by] <= event["at"]:
                    del others[by, id]
            if others:
                found.append(event["id"])
            others[event["by"], event["id"]] = event["at"]
        elif event["event"] == "done":
            inside[event["key"]].pop((event["by"], event["id"]), None)
    return found


def _deaths(events: Iterable[Event]) -> dict[str, float]:
    return {event["who"]: event["at"] for event in events if event["event"] == "died"}


@dataclass(frozen=True, slots=True)
class Readers:
    """Messages of broadcast subscribers. Valid if none is `lost`."""

    readers: int = 0
    lost: list[str] = field(default_factory=list[str])
    """Subscriber and id of each confirmed message that the subscriber did not handle."""
    repeated: int = 0
    """Handled again by the same subscriber, as a repeated publish may be stored twice."""


def readers(events: Iterable[Event]) -> Readers:
    """Compare the messages handled by each broadcast subscriber with the confirmed ones."""
    confirmed: set[str] = set()
    heard: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if event["event"] == "confirmed":
            confirmed.add(event["id"])
        elif event["event"] == "heard":
            heard[event["by"]][event["id"]] += 1
    return Readers(
        len(heard),
        sorted(f"{by}: {id}" for by, ids in heard.items() for id in confirmed - ids.keys()),
        sum(ids.total() - len(ids) for ids in heard.values()),
    )


@dataclass(frozen=True, slots=True)
class Calls:
    """Public awaits with a limit. Valid if none is `overdue`."""

    count: int
    longest: float
    overdue: list[str]
    """Calls that ended more than `SLACK` seconds after their limit."""


def calls(events: Iterable[Event]) -> Calls:
    """Compare the duration of each `confirmed`, `failed` and `call` with its limit."""
    count, longest = 0, 0.0
    overdue: list[str] = []
    for event in events:
        if "took" not in event or event.get("limit") is None:
            continue
        count += 1
        longest = max(longest, event["took"])
        if event["took"] > event["limit"] + SLACK:
            what = event.get("what", "publish")
            overdue.append(f"{what}: {event['took']:.1f} s of {event['limit']:g} s")
    return Calls(count, round(longest, 2), overdue)


NO_ROOM = "no room"
"""The name of the fault that leaves a broker without disk or memory."""


def unclear(events: Iterable[Event]) -> list[str]:
    """Return the publishes that failed without a cause while the broker was full.

    Publishes that began before are excluded, because they may fail for other reasons.
    """
    full: float | None = None
    fault = None
    found: list[str] = []
    for event in events:
        kind, at = event["event"], event["at"]
        if kind == "cut" and event["what"] == NO_ROOM:
            full, fault = at, event["fault"]
        elif kind == "healed" and event["fault"] == fault:
            full = None
        elif kind == "failed" and full is not None and at - event["took"] > full:
            found += [event["id"]] if not event["cause"] else []
    return found


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recovery time: seconds from the end of a fault to the first delivery of a later message."""

    seconds: list[float]
    unrecovered: int
    p50: float | None = None
    p95: float | None = None
    longest: float | None = None


def recovery(events: Sequence[Event]) -> Recovery:
    """Measure from each `healed` to the first delivery of a message attempted after its `cut`."""
    attempted: dict[str, float] = {}
    first: dict[str, float] = {}
    cuts: dict[Any, float] = {}
    heals: list[tuple[float, float]] = []
    for event in events:
        match event["event"]:
            case "attempt":
                attempted.setdefault(event["id"], event["at"])
            case "delivered":
                first.setdefault(event["id"], event["at"])
            case "cut":
                cuts[event["fault"]] = event["at"]
            case "healed" if event["fault"] in cuts:
                heals.append((cuts[event["fault"]], event["at"]))
            case _:
                pass
    arrivals = sorted((first[id], at) for id, at in attempted.items() if id in first)
    seconds: list[float] = []
    for cut, healed in heals:
        after = (arrived for arrived, at in arrivals if at > cut)
        if (arrived := next(after, None)) is not None:
            seconds.append(round(max(0.0, arrived - healed), 3))
    figures = percentiles(seconds, 50, 95, 100)
    return Recovery(seconds, len(heals) - len(seconds), *figures)


@dataclass(frozen=True, slots=True)
class Delays:
    """Messages published with a delay. Valid if none is `early`."""

    count: int
    early: list[str]
    late_p50: float | None = None
    late_p99: float | None = None


def delays(events: Iterable[Event]) -> Delays:
    """Compare `due` and `time` of each first delivery, both in seconds since the epoch."""
    late: dict[str, float] = {}
    for event in events:
        if event["event"] == "delivered" and event.get("due") is not None:
            late.setdefault(event["id"], event["time"] - event["due"])
    early = sorted(id for id, seconds in late.items() if seconds < 0)
    return Delays(len(late), early, *percentiles(list(late.values()), 50, 99))


@dataclass(frozen=True, slots=True)
class Memory:
    """Largest growth of a consumer's resident memory after its first tenth, in bytes."""

    growth: int = 0
    largest: int = 0


def memory(events: Iterable[Event]) -> Memory:
    """Evaluate the resident memory recorded by consumers."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["event"] == "rss":
            sizes[event["by"]].append(event["bytes"])
    growth = [max(rest) - rest[0] for all in sizes.values() if (rest := all[len(all) // 10 :])]
    return Memory(max(growth, default=0), max((max(s) for s in sizes.values()), default=0))


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings on one run."""

    queue: Queue
    effects: Effects
    order: Order | None
    """None if the group was not ordered."""
    calls: Calls
    recovery: Recovery
    delays: Delays
    memory: Memory
    unclear: list[str] = field(default_factory=list[str])
    readers: Readers = field(default_factory=Readers)
    problems: list[str] = field(default_factory=list[str])


def percentiles(values: Sequence[float], *ranks: float) -> tuple[float | None, ...]:
    """Return, for each rank, the smallest value that this per cent of values do not exceed."""
    if not values:
        return tuple(None for _ in ranks)
    ordered = sorted(values)
    places = (max(1, math.ceil(len(ordered) * rank / 100)) - 1 for rank in ranks)
    return tuple(round(ordered[place], 3) for place in places)


def judge(events: Sequence[Event], rows: Sequence[str] = (), *, ordered: bool = False) -> Verdict:
    """Judge a run; `events` are in order of time, `rows` are those of `effects`."""
    return Verdict(
        queue(events),
        effects(events, rows),
        order(events) if ordered else None,
        calls(events),
        recovery(events),
        delays(events),
        memory(events),
        unclear(events),
        readers(events),
    )
