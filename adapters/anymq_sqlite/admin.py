"""Statistics and administration of topics and groups. Functions of the connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from anymq.driver import (
    MOST_POISON,
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

from .file import presence
from .file.schema import file_time
from .positions import seq_before
from .topology import Group, Topic, find_group, find_topic

_TRANSACTION_ROWS = 500


def topics(db: sqlite3.Connection) -> list[str]:
    """Return the names of all topics."""
    return [name for (name,) in db.execute("SELECT name FROM topics ORDER BY name")]


def groups(db: sqlite3.Connection, topic: str) -> list[str]:
    """Return the names of the groups of `topic`; raises `NotFound`."""
    query = "SELECT name FROM groups WHERE topic = ? ORDER BY name"
    return [name for (name,) in db.execute(query, (find_topic(db, topic).id,))]


def group(db: sqlite3.Connection, topic: str, name: str) -> tuple[Topic, Group, bool]:
    """Return group `name`, its topic, and whether it is ordered; raises `NotFound`."""
    found = find_topic(db, topic)
    known = find_group(db, found.id, name)
    if known is None:
        raise NotFound(f"group {name!r} does not exist")
    return found, *known


def topic_info(db: sqlite3.Connection, spec: TopicSpec) -> TopicInfo:
    """Describe a topic; raises `NotFound`."""
    topic = find_topic(db, spec.native)
    partitions = _partition_infos(db, topic)
    query = """
    SELECT retention, retention_bytes, (SELECT count(*) FROM delayed WHERE topic = topics.id),
      (SELECT ifnull(sum(length(body)), 0) FROM messages WHERE topic = topics.id),
      (SELECT time FROM messages WHERE topic = topics.id ORDER BY seq LIMIT 1)
    FROM topics WHERE id = ?
    """
    retention, retention_bytes, delayed, size, oldest = db.execute(query, (topic.id,)).fetchone()
    return TopicInfo(
        native=spec.native,
        partitions=partitions,
        messages=sum(part.messages or 0 for part in partitions),
        bytes=size,
        oldest=moment(oldest),
        delayed=delayed,
        retention=retention,
        retention_bytes=retention_bytes,
    )


def _partition_infos(db: sqlite3.Connection, topic: Topic) -> tuple[PartitionInfo, ...]:
    query = """
    SELECT ifnull(part, 0), count(*), min(seq), max(seq) FROM messages WHERE topic = ? GROUP BY 1
    """
    known = {part: row for part, *row in db.execute(query, (topic.id,))}
    return tuple(
        _partition_info(number, *known.get(number, ())) for number in range(topic.partitions)
    )


def _partition_info(number: int, count: int = 0, first: int = 0, last: int = 0) -> PartitionInfo:
    return PartitionInfo(
        number=number,
        messages=count,
        first=str(first) if count else None,
        last=str(last) if count else None,
    )


def group_info(db: sqlite3.Connection, topic: Topic, group: Group) -> GroupInfo:
    """Describe an unordered group."""
    now = file_time(db)
    undelivered, oldest_undelivered = _undelivered(db, topic, group)
    pending, oldest_taken, oldest_pending = _pending(db, group, now)
    by_owner = _in_flight_by_owner(db, group, now)
    in_flight = sum(by_owner.values())
    oldest = min(
        (at for at in (oldest_undelivered, oldest_pending) if at is not None), default=None
    )
    return GroupInfo(
        native=group.name,
        ordered=False,
        members=tuple(
            MemberInfo(name=name, in_flight=by_owner.get(name, 0), host=host)
            for name, host in presence.live(db, group)
        ),
        lag=undelivered + pending,
        lag_seconds=0.0 if oldest is None else time.time() - oldest,
        in_flight=in_flight,
        waiting=pending - in_flight,
        oldest_pending=0.0 if oldest_taken is None else now - oldest_taken,
        poison=_poison(db, group),
    )


def _undelivered(db: sqlite3.Connection, topic: Topic, group: Group) -> tuple[int, float | None]:
    """Return the number of messages after the cursor, and the time of the first."""
    query = """
    SELECT count(*), (SELECT time FROM messages WHERE topic = :topic AND seq > :cursor
                      ORDER BY seq LIMIT 1)
    FROM messages WHERE topic = :topic AND seq > :cursor
    """
    values = {"topic": topic.id, "cursor": _cursor(db, group)}
    count, oldest = db.execute(query, values).fetchone()
    return count, oldest


def _pending(
    db: sqlite3.Connection, group: Group, now: float
) -> tuple[int, float | None, float | None]:
    """Return the number of pending deliveries, and two times.

    They are when the oldest one in flight was taken, and when the oldest message was stored.
    """
    query = """
    SELECT count(*), min(iif(due > ? AND owner IS NOT NULL, taken, NULL)),
           min((SELECT time FROM messages WHERE messages.seq = pending.seq))
    FROM pending WHERE grp = ?
    """
    count, taken, oldest = db.execute(query, (now, group.id)).fetchone()
    return count, taken, oldest


def _in_flight_by_owner(db: sqlite3.Connection, group: Group, now: float) -> dict[str, int]:
    query = """
    SELECT owner, count(*) FROM pending WHERE grp = ? AND due > ? AND owner IS NOT NULL
    GROUP BY owner
    """
    return dict(db.execute(query, (group.id, now)))


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
        for seq, attempts, owner in db.execute(query, (group.id, MOST_POISON))
    )


def ordered_info(
    db: sqlite3.Connection,
    spec: TopicSpec,
    topic: Topic,
    group: Group,
    states: Mapping[int, PartitionState],
) -> GroupInfo:
    """Describe an ordered group."""
    oldest = now = time.time()
    lags: dict[int, int | None] = {}
    for number, state in states.items():
        lags[number], stored = _unsettled(db, topic, number, state)
        oldest = min(oldest, now if stored is None else stored)
    return ordered.describe(
        spec,
        group.name,
        states=states,
        lags=lags,
        lag_seconds=now - oldest,
        members=[MemberInfo(name=name, host=host) for name, host in presence.live(db, group)],
    )


def _unsettled(
    db: sqlite3.Connection, topic: Topic, number: int, state: PartitionState
) -> tuple[int, float | None]:
    """Return the number of unsettled messages, and the time of the first, None without one."""
    only = "" if topic.partitions == 1 else f"AND part = {number}"
    unsettled = f"""
    FROM messages WHERE topic = ? AND seq > ? {only}
    AND seq NOT IN ({",".join(map(str, map(int, state.done)))})
    """
    values = (topic.id, int(state.cursor))
    (lag,) = db.execute(f"SELECT count(*) {unsettled}", values).fetchone()
    row = db.execute(f"SELECT time {unsettled} ORDER BY seq LIMIT 1", values).fetchone()
    return lag, row[0] if row else None


def seek(db: sqlite3.Connection, topic: Topic, group: Group, to: Start) -> None:
    """Reset an unordered group to `to`; raises `StateError` if it has live members."""
    presence.check_idle(db, group)
    cursor = seq_before(db, topic.id, to)
    db.execute("DELETE FROM pending WHERE grp = ?", (group.id,))
    db.execute("UPDATE groups SET cursor = ? WHERE id = ?", (cursor, group.id))


def delete_group(db: sqlite3.Connection, topic: str, name: str) -> None:
    """Delete group `name` if it exists; raises `StateError` if it has live members."""
    try:
        _, found, _ = group(db, topic, name)
    except NotFound:
        return
    presence.check_idle(db, found)
    _delete_group(db, found.id)


def _delete_group(db: sqlite3.Connection, group: int) -> None:
    for table in ("pending", "cells", "members"):
        db.execute(f"DELETE FROM {table} WHERE grp = ?", (group,))  # noqa: S608
    db.execute("DELETE FROM groups WHERE id = ?", (group,))


def purge(db: sqlite3.Connection, topic: Topic, last: int) -> bool:
    """Delete up to 500 messages of `topic`, up to `last`; return whether there may be more.

    The call that deletes the last of them also deletes delayed messages and pending deliveries.
    """
    some = "SELECT seq FROM messages WHERE topic = ? AND seq <= ? ORDER BY seq LIMIT ?"
    delete = f"DELETE FROM messages WHERE seq IN ({some})"  # noqa: S608
    if db.execute(delete, (topic.id, last, _TRANSACTION_ROWS)).rowcount == _TRANSACTION_ROWS:
        return True
    db.execute("DELETE FROM delayed WHERE topic = ?", (topic.id,))
    delete = """
    DELETE FROM pending WHERE grp IN (SELECT id FROM groups WHERE topic = ?) AND seq <= ?
    """
    db.execute(delete, (topic.id, last))
    return False


def delete_topic(db: sqlite3.Connection, topic: Topic) -> None:
    """Delete `topic`, its groups, and the messages published since it was purged."""
    query = "SELECT id FROM groups WHERE topic = ?"
    for (found,) in db.execute(query, (topic.id,)).fetchall():
        _delete_group(db, found)
    for table in ("messages", "delayed"):
        db.execute(f"DELETE FROM {table} WHERE topic = ?", (topic.id,))  # noqa: S608
    db.execute("DELETE FROM topics WHERE id = ?", (topic.id,))
