"""`Capabilities`: the abilities of a backend. The documentation's table is generated from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum


class Level(Enum):
    """The support level of an ability."""

    NATIVE = "native"
    """Implemented by the broker; by the adapter for SQLite and memory, which have no broker."""
    EMULATED = "emulated"
    """Implemented by anymq on top of the broker."""
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Support:
    """One ability: its level, and a note with its implementation or its caveat."""

    level: Level
    note: str = ""

    def __bool__(self) -> bool:
        return self.level is not Level.UNSUPPORTED

    @property
    def is_native(self) -> bool:
        """Whether the broker itself implements it."""
        return self.level is Level.NATIVE


def native(note: str = "") -> Support:
    """Return the support for an ability that the broker implements."""
    return Support(Level.NATIVE, note)


def emulated(note: str) -> Support:
    """Return the support for an ability that anymq implements; `note` has the method and cost."""
    return Support(Level.EMULATED, note)


def unsupported(note: str) -> Support:
    """Return the support for a missing ability; `note` has the consequence or the error raised."""
    return Support(Level.UNSUPPORTED, note)


_NOT_DONE = unsupported("This adapter does not do it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The abilities of one backend.

    `durability` is a sentence on the failures that a confirmed message survives.
    """

    durability: str
    persistent: Support
    """Messages survive a restart of the backend."""
    processes: Support
    """Several processes can share the backend."""
    groups: Support
    """Members of a group compete; groups are independent."""
    broadcast: Support
    """`group=None`: every subscriber gets every message."""
    earliest: Support
    """A new group can start with messages published before it existed."""
    delayed_nack: Support
    """`nack(delay)` redelivers the message after the delay, durably."""
    attempt_count: Support
    """`attempt` survives restarts; native: crashed attempts are counted too."""
    release: Support
    """`release` returns a delivery to its group without counting an attempt."""
    extend: Support
    """A slow handler keeps its lease."""
    dead_letters: Support
    """`reject` moves the message to the dead-letter topic; no crash can lose it on the way."""
    publish_dedup: Support
    """A publish repeated after an ambiguous failure is stored once."""
    ordered: Support = _NOT_DONE
    """`ordered=True`: one message of a key at a time, in order, over all members of the group."""
    ordered_attempts: Support = _NOT_DONE
    """Failed attempts of an ordered message survive a crash."""
    delayed_publish: Support = _NOT_DONE
    """`publish(delay=, deliver_at=)`: durable, of any length, never early."""
    replay: Support = _NOT_DONE
    """`start=` with a position or a time, `admin.seek`, and browsing the log."""
    retention: Support = _NOT_DONE
    """`Topic(retention=, retention_bytes=)` bounds the age and the size of retained messages."""
    admin: Support = _NOT_DONE
    """`broker.admin`: list, describe, delete, purge."""

    def items(self) -> list[tuple[str, Support]]:
        """Return `(name, support)` pairs in the order of the table."""
        values = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return [(name, value) for name, value in values if isinstance(value, Support)]
