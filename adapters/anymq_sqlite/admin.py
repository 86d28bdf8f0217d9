"""Looking at topics and groups, and operating them. Functions of the connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from anymq.driver import (
    GroupInfo,
    MemberInfo,
    NotFound,
    PartitionInfo,
    PartitionState,
    PoisonInfo,
    Start,
    TopicInfo,
    TopicSpec,
    moment,
    ordered,
)

from . import clock, log, members
from .pending import Group, find

_WORST = 100
# Deleted in one transaction.
_WINDOW = 500


def topics(db: sqlite3.Connection) -> list[str]:
    """Return the names of all topics."""
    return [name for (name,) in db.execute("SELECT name FROM topics ORDER BY name")]


def groups(db: sqlite3.Connection, topic: str) -> list[str]:
    """Return the names of the groups of `topic`; raises `NotFound`."""
    query = "SELECT name FROM groups WHERE topic = ? ORDER BY name"
    return [name for (name,) in db.execute(query, (log.find(db, topic).id,))]


def group(db: sqlite3.Connection, topic: str, name: str) -> tuple[log.Topic, Group, bool]:
    """Return group `name`, its topic, and whether it is ordered; raises `NotFound`."""
    found = log.find(db, topic)
    known = find(db, found.id, name)
    if known is None:
        raise NotFound(f"group {name!r} does not exist")
    return found, *known


def topic_info(db: sqlite3.Connection, spec: TopicSpec) -> TopicInfo:
    """Describe a topic; raises `NotFound`."""
    topic = log.find(db, spec.native)
    parts = _parts(db, topic)
    query = """
    SELECT retention, retention_bytes, (SELECT count(*) FROM delayed WHERE topic = topics.id),
      (SELECT ifnull(sum(length(body)), 0) FROM messages WHERE topic = topics.id),
      (SELECT time FROM messages WHERE topic = topics.id ORDER BY seq LIMIT 1)
    FROM topics WHERE id = ?
    """
    retention, retention_bytes, delayed, size, oldest = db.execute(query, (topic.id,)).fetchone()
    return TopicInfo(
        name=spec.name,
        native=spec.native,
        partitions=parts,
        messages=sum(part.messages or 0 for part in parts),
        bytes=size,
        oldest=moment(oldest),
        delayed=delayed,
        retention=retention,
        retention_bytes=retention_bytes,
    )


def _parts(db: sqlite3.Connection, topic: log.Topic) -> tuple[PartitionInfo, ...]:
    query = """
    SELECT ifnull(part, 0), count(*), min(seq), max(seq) FROM messages WHERE topic = ? GROUP BY 1
    """
    known = {part: row for part, *row in db.execute(query, (topic.id,))}
    return tuple(_part(number, *known.get(number, ())) for number in range(topic.partitions))


def _part(number: int, count: int = 0, first: int = 0, last: int = 0) -> PartitionInfo:
    return PartitionInfo(
        number=number,
        messages=count,
        first=str(first) if count else None,
        last=str(last) if count else None,
    )


def group_info(
    db: sqlite3.Connection, spec: TopicSpec, topic: log.Topic, group: Group
) -> GroupInfo:
    """Describe a group that is not ordered."""
    now = clock.now(db)
    undelivered, oldest = db.execute(
        """
        SELECT count(*), (SELECT time FROM messages WHERE topic = :topic AND seq > :cursor
                          ORDER BY seq LIMIT 1)
        FROM messages WHERE topic = :topic AND seq > :cursor
        """,
        {"topic": topic.id, "cursor": _cursor(db, group)},
    ).fetchone()
    held = dict(
        db.execute(
            "SELECT owner, count(*) FROM pending WHERE grp = ? AND due > ? AND owner IS NOT NULL "
            "GROUP BY owner",
            (group.id, now),
        )
    )
    query = """
    SELECT count(*), min(iif(due > ? AND owner IS NOT NULL, taken, NULL)),
           min((SELECT time FROM messages WHERE messages.seq = pending.seq))
    FROM pending WHERE grp = ?
    """
    pending, taken, begun = db.execute(query, (now, group.id)).fetchone()
    oldest = min((at for at in (oldest, begun) if at is not None), default=None)
    in_flight = sum(held.values())
    return GroupInfo(
        topic=spec.name,
        group=group.name.removeprefix(f"{spec.name}."),
        native=group.name,
        ordered=False,
        members=tuple(
            MemberInfo(name=name, in_flight=held.get(name, 0), host=host)
            for name, host in members.live(db, group)
        ),
        lag=undelivered + pending,
        lag_seconds=0.0 if oldest is None else time.time() - oldest,
        in_flight=in_flight,
        waiting=pending - in_flight,
        oldest_pending=0.0 if taken is None else now - taken,
        poison=_poison(db, group),
    )


def _cursor(db: sqlite3.Connection, group: Group) -> int:
    query = "SELECT cursor FROM groups WHERE id = ?"
    cursor: int = db.execute(query, (group.id,)).fetchone()[0]
    return cursor


def _poison(db: sqlite3.Connection, group: Group) -> tuple[PoisonInfo, ...]:
    query = """
    SELECT seq, redeliveries + 1, owner FROM pending WHERE grp = ? AND redeliveries > 0
    ORDER BY redeliveries DESC LIMIT ?
    """
    return tuple(
        PoisonInfo(position=str(seq), attempts=attempts, member=owner)
        for seq, attempts, owner in db.execute(query, (group.id, _WORST))
    )


def ordered_info(
    db: sqlite3.Connection,
    spec: TopicSpec,
    topic: log.Topic,
    group: Group,
    states: Mapping[int, PartitionState],
) -> GroupInfo:
    """Describe an ordered group."""
    oldest = now = time.time()
    lags: dict[int, int | None] = {}
    for number, state in states.items():
        lags[number], stored = _behind(db, topic, number, state)
        oldest = min(oldest, now if stored is None else stored)
    return ordered.describe(
        spec,
        group.name,
        states=states,
        lags=lags,
        lag_seconds=now - oldest,
        members=[MemberInfo(name=name, host=host) for name, host in members.live(db, group)],
    )


def _behind(
    db: sqlite3.Connection, topic: log.Topic, number: int, state: PartitionState
) -> tuple[int, float | None]:
    """Return how many messages are not settled, and when the first of them was stored."""
    only = "" if topic.partitions == 1 else f"AND part = {number}"
    unsettled = f"""
    FROM messages WHERE topic = ? AND seq > ? {only}
    AND seq NOT IN ({",".join(map(str, map(int, state.done)))})
    """
    place = (topic.id, int(state.cursor))
    (lag,) = db.execute(f"SELECT count(*) {unsettled}", place).fetchone()
    row = db.execute(f"SELECT time {unsettled} ORDER BY seq LIMIT 1", place).fetchone()
    return lag, row[0] if row else None


def seek(db: sqlite3.Connection, topic: log.Topic, group: Group, to: Start) -> None:
    """Let a group that is not ordered begin anew; raises `StateError` if it has live members."""
    members.check_idle(db, group)
    cursor = log.behind(db, topic.id, to)
    db.execute("DELETE FROM pending WHERE grp = ?", (group.id,))
    db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (cursor, group.id))


def delete_group(db: sqlite3.Connection, topic: str, name: str) -> None:
    """Delete group `name` if it exists; raises `StateError` if it has live members."""
    try:
        _, found, _ = group(db, topic, name)
    except NotFound:
        return
    members.check_idle(db, found)
    _forget(db, found.id)


def _forget(db: sqlite3.Connection, group: int) -> None:
    for table in ("pending", "cells", "members"):
        db.execute(f"DELETE FROM {table} WHERE grp = ?", (group,))  # noqa: S608
    db.execute("DELETE FROM groups WHERE id = ?", (group,))


def purge(db: sqlite3.Connection, topic: log.Topic, last: int) -> bool:
    """Delete some messages of `topic` up to `last`; with the last of them, all that belongs to it.

    Return whether there may be more: a transaction is to be short.
    """
    some = "SELECT seq FROM messages WHERE topic = ? AND seq <= ? ORDER BY seq LIMIT ?"
    delete = f"DELETE FROM messages WHERE seq IN ({some})"  # noqa: S608
    if db.execute(delete, (topic.id, last, _WINDOW)).rowcount == _WINDOW:
        return True
    db.execute("DELETE FROM delayed WHERE topic = ?", (topic.id,))
    delete = """
    DELETE FROM pending WHERE grp IN (SELECT id FROM groups WHERE topic = ?) AND seq <= ?
    """
    db.execute(delete, (topic.id, last))
    return False


def delete_topic(db: sqlite3.Connection, topic: log.Topic) -> None:
    """Delete `topic`, purged before, with all that has come since."""
    query = "SELECT id FROM groups WHERE topic = ?"
    for (found,) in db.execute(query, (topic.id,)).fetchall():
        _forget(db, found)
    for table in ("messages", "delayed"):
        db.execute(f"DELETE FROM {table} WHERE topic = ?", (topic.id,))  # noqa: S608
    db.execute("DELETE FROM topics WHERE id = ?", (topic.id,))
