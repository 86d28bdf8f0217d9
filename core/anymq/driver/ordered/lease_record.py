"""What a cell says: who reads a partition of a group, and how far the group is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class LeaseRecord:
    """The content of one cell.

    `owner` is the member that reads the partition, empty if it is free; `wanted` the member that
    asks for it or that it is kept for. `epoch` grows with every change of owner. `beat` grows with
    everything the owner writes, and `time` is the owner's wall clock then: only for people and
    `admin`, members never compare clocks. `lease`, in seconds, is the owner's: without a new beat
    for that long it counts as dead.

    Everything up to `cursor`, a place, is done, and so are the places in `done` above it.
    `delivered` is the last place that was handed out by somebody who may have died with it: empty
    if everybody left cleanly. `ahead` counts the places from the cursor to the last one handed out.
    `attempts` says how many earlier deliveries the last one of a place has shown, if any. For those
    in `kept` the next one shows just what that says: a handler has begun with them, or has failed.
    Of others up to `delivered` it is not known whether their handlers had begun. `due` is when the
    places that failed may be handed to a handler again: the fields of a `driver.Due`.
    """

    cursor: str
    owner: str = ""
    wanted: str = ""
    epoch: int = 0
    beat: int = 0
    lease: float = 0.0
    time: float = 0.0
    delivered: str = ""
    ahead: int = 0
    done: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    due: dict[str, Sequence[float]] = field(default_factory=dict)

    def encode(self) -> str:
        """Return it as text; what is empty is left out."""
        everything = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({k: v for k, v in everything.items() if v}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> LeaseRecord:
        """Return what `encode` wrote; what is not known here is ignored."""
        said: dict[str, Any] = json.loads(text)
        known: dict[str, Any] = {"cursor": ""}
        known |= {name: value for name, value in said.items() if name in cls.__slots__}
        return cls(**known)
