"""`LeaseRecord`: the durable state of one partition of an ordered group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class LeaseRecord:
    """Owner, cursor and unsettled records of one partition, stored in its `Cell`.

    `owner` is the member that owns the partition, empty if it is free. `wanted` is the member that
    requests it, or for which it is reserved. `epoch` grows with every change of owner, `beat` with
    every write of the owner. `lease` is the owner's lease in seconds: an owner that writes no new
    `beat` for that long counts as dead. `time` is the owner's wall clock at its last write. Only
    `admin` reads it; members never compare clocks.

    All records up to the position `cursor` are settled, and so are the positions in `done` above
    it. `delivered` is the last position delivered by a member that may have crashed; it is empty
    if every member left cleanly. `ahead` counts the positions from the cursor to the last one
    delivered. `attempts` maps a position to the earlier deliveries that its last delivery showed,
    if any. `kept` maps a position to the earlier deliveries that its next delivery shows, because
    a handler has started with it or has failed. For other positions up to `delivered` it is unknown
    whether a handler had started. `due` maps failed positions to the fields of their `Due`.
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
        """Return the record as JSON, without its empty fields."""
        everything = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({k: v for k, v in everything.items() if v}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> LeaseRecord:
        """Return the record that `encode` wrote; fields of later versions are ignored."""
        stored: dict[str, Any] = json.loads(text)
        known: dict[str, Any] = {"cursor": ""}
        known |= {name: value for name, value in stored.items() if name in cls.__slots__}
        return cls(**known)
