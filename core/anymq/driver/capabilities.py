"""What a backend can do, and how: one table, from which the documentation is generated."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum


class Level(Enum):
    """How a backend comes by an ability."""

    NATIVE = "native"
    """The broker does it; for SQLite and memory, which have none, the adapter itself."""
    EMULATED = "emulated"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Support:
    """One ability: its level and, in a sentence, how or with what caveat."""

    level: Level
    note: str = ""

    def __bool__(self) -> bool:
        return self.level is not Level.UNSUPPORTED

    @property
    def is_native(self) -> bool:
        """Whether the broker itself does it."""
        return self.level is Level.NATIVE


def native(note: str = "") -> Support:
    """The broker does it."""
    return Support(Level.NATIVE, note)


def emulated(note: str) -> Support:
    """anymq does it on top of the broker; `note` says how and what it costs."""
    return Support(Level.EMULATED, note)


def unsupported(note: str) -> Support:
    """Not there; `note` says what happens instead, or that asking raises `UnsupportedOperation`."""
    return Support(Level.UNSUPPORTED, note)


_NOT_DONE = unsupported("This adapter does not do it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The abilities of one backend.

    `durability` says in a sentence what a confirmed publish survives.
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
    """A new group can begin with what was published before it existed."""
    delayed_nack: Support
    """`nack(delay)` brings the message back after the delay, durably."""
    attempt_count: Support
    """`attempt` survives restarts; native: deliveries whose consumer crashed are counted too."""
    release: Support
    """`release` gives a delivery back without counting an attempt."""
    extend: Support
    """A slow handler keeps its lease."""
    dead_letters: Support
    """`reject` moves the message to the dead letters without a window for loss."""
    publish_dedup: Support
    """A publish repeated after an ambiguous failure is stored once."""
    ordered: Support = _NOT_DONE
    """`ordered=True`: one message of a key at a time, in order, over all members of the group."""
    ordered_attempts: Support = _NOT_DONE
    """Failed attempts of an ordered message are remembered over a crash."""
    delayed_publish: Support = _NOT_DONE
    """`publish(delay=, deliver_at=)`: durable, of any length, never early."""
    replay: Support = _NOT_DONE
    """`start=` a position or a time, `admin.seek`, and browsing the log."""
    retention: Support = _NOT_DONE
    """`Topic(retention=, retention_bytes=)` bounds what a topic keeps, by age and by size."""
    admin: Support = _NOT_DONE
    """`broker.admin`: list, describe, delete, purge."""

    def items(self) -> list[tuple[str, Support]]:
        """Return `(name, support)` pairs in the order of the table."""
        values = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return [(name, value) for name, value in values if isinstance(value, Support)]
