"""Topics and groups: created, and found by name. Functions of the connection."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from anymq.driver import ConfigurationError, NotFound, SubscribeSpec, TopicSpec


class Topic(NamedTuple):
    """An existing topic."""

    id: int
    partitions: int


class Group(NamedTuple):
    """An existing group. Readers check id and name, in case the file was replaced."""

    id: int
    name: str


def declare_topic(db: sqlite3.Connection, topic: TopicSpec) -> None:
    """Create `topic` unless it exists; a retention replaces the one it has.

    Raises `ConfigurationError` if it exists with another number of partitions.
    """
    insert = "INSERT INTO topics (name, partitions) VALUES (?, ?) ON CONFLICT DO NOTHING"
    db.execute(insert, (topic.native, topic.partitions or 1))
    count = find_topic(db, topic.native).partitions
    if topic.partitions not in (None, count):
        raise ConfigurationError(
            f"the topic {topic.name} has {count} partitions, not {topic.partitions}"
        )
    update = """
    UPDATE topics SET retention = ifnull(?, retention), retention_bytes = ifnull(?, retention_bytes)
    WHERE name = ?
    """
    if (topic.retention, topic.retention_bytes) != (None, None):
        db.execute(update, (topic.retention, topic.retention_bytes, topic.native))


def find_topic(db: sqlite3.Connection, name: str) -> Topic:
    """Return the topic called `name`; raises `NotFound`."""
    row = db.execute("SELECT id, partitions FROM topics WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"topic {name!r} does not exist")
    return Topic(*row)


def find_group(db: sqlite3.Connection, topic: int, name: str) -> tuple[Group, bool] | None:
    """Return group `name` of `topic` and whether it is ordered, None if it does not exist."""
    query = "SELECT id, ordered FROM groups WHERE topic = ? AND name = ?"
    row = db.execute(query, (topic, name)).fetchone()
    return (Group(row[0], name), bool(row[1])) if row else None


def subscribed_group(db: sqlite3.Connection, topic: int, spec: SubscribeSpec) -> Group | None:
    """Return the group of `spec`, None if the caller has to create it.

    Raises `NotFound` if it does not exist and may not be created, and `ConfigurationError` if only
    one of the two is ordered.
    """
    found = find_group(db, topic, spec.native_group)
    if found is None:
        if not spec.create:
            raise NotFound(f"group {spec.native_group!r} does not exist")
        return None
    group, ordered = found
    if ordered is not spec.ordered:
        raise ConfigurationError(f"the group {group.name} is {'' if ordered else 'not '}ordered")
    return group


def create_group(db: sqlite3.Connection, topic: int, spec: SubscribeSpec, cursor: int) -> Group:
    """Create the group of `spec` with its cursor at the `seq` of the message before its first."""
    insert = "INSERT INTO groups (topic, name, cursor, ordered) VALUES (?, ?, ?, ?)"
    row = (topic, spec.native_group, cursor, spec.ordered)
    return Group(db.execute(insert, row).lastrowid or 0, spec.native_group)
