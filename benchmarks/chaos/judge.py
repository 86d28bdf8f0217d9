"""What the journals say: Jepsen's total-queue and log checks, as pure functions.

Events (see `producer`, `consumer`, `nemesis` for who notes them), each with `at` and `by`:
`attempt`, `confirmed` and `failed` of a publish (`id`, `key`, `number`; `cause` of a failure);
`delivered` and `done` of a handler (`id`, `key`, `number`, `attempt`); `applied`, the handler's
effect, and `noted`, once the idempotency store has it; `letter`, what arrived in the dead letters;
`heard`, what a broadcast reader has handled;
`call`, any public await with its `took` and its `limit`; `died`, `who` was killed; `rss`, resident
`bytes`; `cut` and `healed` of a fault.
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
    """Sets of message ids. Valid: nothing `lost` and nothing `unexpected`."""

    attempted: int
    acknowledged: int
    lost: list[str]
    """Confirmed, and delivered to nobody."""
    unexpected: list[str]
    """Delivered, and never published."""
    duplicated: int
    """Delivered more than once; at-least-once allows it."""
    recovered: int
    """Delivered although their publish had failed: it was ambiguous."""


def queue(events: Iterable[Event]) -> Queue:
    """Compare what was published with what arrived; a dead letter is an arrival as well."""
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
    """How often handlers took effect. Valid: nothing `twice`, nothing `missing`."""

    applied: int
    twice: list[str]
    """Applied again although the store had noted it, or while the first was still at work."""
    missing: list[str]
    """Handled to the end, without an effect."""
    in_gap: int
    """Applied again because the process died after the effect and before it could be noted."""
    committed: int = 0
    """Effects that share a transaction with their note, which closes the gap."""
    committed_twice: list[str] = field(default_factory=list[str])


def effects(events: Sequence[Event], rows: Sequence[str] = ()) -> Effects:
    """Judge what was `applied`: once for each id, unless its process died before `noted`.

    `rows` are the ids whose effects shared a transaction with the note: none may be there twice.
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
    """Valid: no `inversions`, no `overlaps`."""

    keys: int
    inversions: list[str]
    """Ids whose first delivery came after the first delivery of a later message of their key."""
    overlaps: list[str]
    """Ids handled while another message of their key was in another handler."""


def order(events: Sequence[Event]) -> Order:
    """Judge each key's first deliveries, and that its messages were handled one at a time.

    Only confirmed publishes count: one that failed may be stored late, or again. `events` are in
    the order of time.
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
    """Return who came into a handler while another message of the key was in one.

    A handler that never came to an end went with its process, at its last sign of life at latest.
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
    """Broadcast readers. Valid: nothing `lost`."""

    readers: int = 0
    lost: list[str] = field(default_factory=list[str])
    """Reader and id of what was confirmed, and the reader has not heard."""
    repeated: int = 0
    """Heard again by the same reader; a publish that was repeated may be stored twice."""


def readers(events: Iterable[Event]) -> Readers:
    """Compare what each reader has heard with what was confirmed while it was there."""
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
    """Public awaits that had a limit. Valid: none `overdue`."""

    count: int
    longest: float
    overdue: list[str]
    """Those that ended more than a second after their limit, or never."""


def calls(events: Iterable[Event]) -> Calls:
    """Judge every `confirmed`, `failed` and `call` by its `took` and its `limit`."""
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
"""What a fault is called that leaves the broker without disk or memory."""


def unclear(events: Iterable[Event]) -> list[str]:
    """Return the publishes that failed for want of room without saying why.

    Those that began before the broker was full may fail for another reason.
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
    """Seconds from a fault's end until a message published after the fault was handled."""

    seconds: list[float]
    unrecovered: int
    p50: float | None = None
    p95: float | None = None
    longest: float | None = None


def recovery(events: Sequence[Event]) -> Recovery:
    """Take each `healed`, and the first delivery of what was first attempted after its `cut`."""
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
    """Messages that were published with a delay. Valid: none `early`."""

    count: int
    early: list[str]
    late_p50: float | None = None
    late_p99: float | None = None


def delays(events: Iterable[Event]) -> Delays:
    """Compare `due` and `time`, both seconds since the epoch, of each first delivery."""
    late: dict[str, float] = {}
    for event in events:
        if event["event"] == "delivered" and event.get("due") is not None:
            late.setdefault(event["id"], event["time"] - event["due"])
    early = sorted(id for id, seconds in late.items() if seconds < 0)
    return Delays(len(late), early, *percentiles(list(late.values()), 50, 99))


@dataclass(frozen=True, slots=True)
class Memory:
    """The largest growth of a consumer's resident memory, in bytes, after its first tenth."""

    growth: int = 0
    largest: int = 0


def memory(events: Iterable[Event]) -> Memory:
    """Judge the `rss` that consumers note about themselves."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["event"] == "rss":
            sizes[event["by"]].append(event["bytes"])
    growth = [max(rest) - rest[0] for all in sizes.values() if (rest := all[len(all) // 10 :])]
    return Memory(max(growth, default=0), max((max(s) for s in sizes.values()), default=0))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was found out about one run."""

    queue: Queue
    effects: Effects
    order: Order | None
    """None where no order was asked for."""
    calls: Calls
    recovery: Recovery
    delays: Delays
    memory: Memory
    unclear: list[str] = field(default_factory=list[str])
    readers: Readers = field(default_factory=Readers)
    problems: list[str] = field(default_factory=list[str])


def percentiles(values: Sequence[float], *ranks: float) -> tuple[float | None, ...]:
    """Return the smallest value that so many per cent do not exceed, for each rank."""
    if not values:
        return tuple(None for _ in ranks)
    ordered = sorted(values)
    places = (max(1, math.ceil(len(ordered) * rank / 100)) - 1 for rank in ranks)
    return tuple(round(ordered[place], 3) for place in places)


def judge(events: Sequence[Event], rows: Sequence[str] = (), *, ordered: bool = False) -> Verdict:
    """Judge a whole run; `events` are in the order of time, `rows` as in `effects`."""
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
