"""The workloads. Every contestant of a workload does exactly the same work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["publish", "consume", "end_to_end", "latency"]
"""The timed part: `publish`, with consumption only counted; `consume`, of an earlier backlog;
`end_to_end`, both at once at full speed; `latency`, both at once at rates fixed in advance."""

ALL_CONTESTANTS = frozenset(
    {
        "anymq",
        "anymq+idempotency",
        "anymq+redis",
        "raw",
        "raw best",
        "faststream",
        "mq-bridge",
    }
)
ANYMQ_AND_RAW = frozenset({"anymq", "raw"})
ANYMQ_AND_BOTH_RAW = frozenset({"anymq", "raw", "raw best"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One benchmark workload.

    `ability` is the ability a contestant needs (`Contestant.can`). With `many`, messages are
    published in lists of `batch` by the fastest call available, otherwise one by one from `tasks`
    tasks. A measurement aims to take `seconds` and uses at most `max_messages` messages. Workloads
    of one `priority` are measured together, lowest first; `weight` is a workload's share of the
    time.
    """

    name: str
    kind: Kind
    ability: str
    title: str
    size: int = 256
    many: bool = False
    typed: bool = False
    ordered: bool = False
    keys: int = 0
    partitions: int = 1
    consumers: int = 1
    tasks: int = 256
    batch: int = 1000
    contestants: frozenset[str] = ALL_CONTESTANTS
    backends: frozenset[str] | None = None
    seconds: float = 1.0
    max_messages: int = 400_000
    loads: tuple[float, ...] = ()
    priority: int = 0
    weight: float = 1.0
    rounds: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "max_messages", min(self.max_messages, max(200, 96 * 1024 * 1024 // self.size))
        )


_PUBLISH_AND_CONSUME: tuple[tuple[str, Kind], ...] = (
    ("publish", "publish"),
    ("consume", "consume"),
)

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        name="publish",
        kind="publish",
        ability="publish",
        title="publish, one awaited call per message, from 256 tasks",
        weight=4.0,
    ),
    Workload(
        name="publish-many",
        kind="publish",
        ability="publish_many",
        title="publish by the fastest call that confirms each message",
        many=True,
        weight=3.0,
    ),
    Workload(
        name="consume",
        kind="consume",
        ability="consume",
        title="consume a backlog with a trivial handler, acknowledging each message",
        many=True,
        weight=5.0,
    ),
    Workload(
        name="through",
        kind="end_to_end",
        ability="consume",
        title="publish and handle concurrently, in one process",
        many=True,
        backends=frozenset({"memory"}),
        contestants=ANYMQ_AND_RAW,
        weight=2.0,
    ),
    Workload(
        name="latency",
        kind="latency",
        ability="latency",
        title="end to end, at 50, 70 and 90 % of the capacity of the slower contestant",
        contestants=ANYMQ_AND_RAW,
        loads=(0.5, 0.7, 0.9),
        seconds=3.0,
        priority=1,
        weight=6.0,
    ),
    Workload(
        name="typed",
        kind="consume",
        ability="typed",
        title="consume JSON as a pydantic model",
        many=True,
        typed=True,
        contestants=ANYMQ_AND_BOTH_RAW | {"faststream"},
        priority=2,
    ),
    Workload(
        name="backlog",
        kind="consume",
        ability="consume",
        title="consume a long backlog",
        many=True,
        contestants=frozenset({"anymq"}),
        seconds=15.0,
        max_messages=1_000_000,
        priority=3,
        weight=4.0,
        rounds=1,
    ),
    Workload(
        name="ordered",
        kind="consume",
        ability="consume",
        title="consume in order of 64 keys, from 4 partitions",
        many=True,
        ordered=True,
        keys=64,
        partitions=4,
        contestants=frozenset({"anymq"}),
        priority=4,
        rounds=3,
    ),
    Workload(
        name="unordered",
        kind="consume",
        ability="consume",
        title="consume the same 64 keys and 4 partitions without order",
        many=True,
        keys=64,
        partitions=4,
        contestants=frozenset({"anymq"}),
        priority=4,
        rounds=3,
    ),
    *(
        Workload(
            name=f"consumers-{count}",
            kind="consume",
            ability="consume",
            title=f"consume with {count} processes, from 4 partitions",
            many=True,
            keys=64,
            partitions=4,
            consumers=count,
            contestants=ANYMQ_AND_RAW,
            priority=5,
            rounds=3,
        )
        for count in (1, 2, 4)
    ),
    *(
        Workload(
            name=f"{ability}-{label}",
            kind=kind,
            ability=ability,
            title=f"{ability}, bodies of {label.replace('-', ' ')}",
            size=size,
            many=ability == "consume",
            contestants=ANYMQ_AND_BOTH_RAW,
            priority=6,
            rounds=3,
        )
        for size, label in ((4096, "4-KiB"), (65536, "64-KiB"))
        for ability, kind in _PUBLISH_AND_CONSUME
    ),
)
"""All workloads, in the order of the tables."""

NAMES = tuple(workload.name for workload in WORKLOADS)
QUICK_WORKLOADS = frozenset({"publish", "publish-many", "consume", "through", "latency"})


def chosen(names: Iterable[str]) -> list[Workload]:
    """Return the named workloads, in the order of the tables."""
    wanted = frozenset(names)
    return [workload for workload in WORKLOADS if workload.name in wanted]


EVERY_ROUND = {
    "publish": frozenset({"anymq", "raw"}),
    "publish-many": frozenset({"anymq", "raw best"}),
    "consume": frozenset({"anymq", "raw"}),
}
"""Contestants that even a quick run measures in every round, because goals compare them."""
