"""Keys of topics and groups on the server. All have the topic's name as their hash tag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicKeys:
    """The keys of one topic.

    `streams` are its partitions. The first has the topic's own name, so a topic of one partition
    is a stream like any other. `about` is a hash with the topic's declaration. `delayed` is a
    sorted set of delayed records by due time, and `payloads` a hash with their fields. `cells` is
    a hash with the lease records of ordered groups.
    """

    streams: tuple[bytes, ...]
    about: bytes
    delayed: bytes
    payloads: bytes
    cells: bytes

    def prefix(self, partition: int) -> bytes:
        """Return the beginning of positions in `partition`: empty if there is only one."""
        return b"%d:" % partition if len(self.streams) > 1 else b""


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of one group on one topic.

    `group` is its name. `retry` is a stream of copies for this group alone; `delayed` and
    `payloads` are as a topic's, for copies that are not due. `members` is a hash with each
    member's heartbeat. `starts` is a hash with the number of handlers known to have started, by
    pending entry.
    """

    group: bytes
    retry: bytes
    delayed: bytes
    payloads: bytes
    members: bytes
    starts: bytes


def topic_keys(native: str, partitions: int) -> TopicKeys:
    """Return the keys of the topic with the name `native` on the server."""
    others = (f"{{{native}}}._p{number}".encode() for number in range(1, partitions))
    return TopicKeys(
        streams=(native.encode(), *others),
        about=f"{{{native}}}._topic".encode(),
        delayed=f"{{{native}}}._delayed".encode(),
        payloads=f"{{{native}}}._payloads".encode(),
        cells=f"{{{native}}}._cells".encode(),
    )


def group_keys(topic: str, native: str, native_group: str) -> GroupKeys:
    """Return the keys of a group on `topic`, whose stream is `native`.

    A consumer group belongs to its stream, so the group `billing` on `orders` is named `billing`.
    """
    group = native_group.removeprefix(f"{topic}.")
    prefix = f"{{{native}}}.{group}."
    return GroupKeys(
        group=group.encode(),
        retry=f"{prefix}_retry".encode(),
        delayed=f"{prefix}_delayed".encode(),
        payloads=f"{prefix}_payloads".encode(),
        members=f"{prefix}_members".encode(),
        starts=f"{prefix}_starts".encode(),
    )


def fence_key(native: str, producer: str) -> bytes:
    """Return the key with the last call number of one producer to the topic `native`."""
    return f"{{{native}}}._sent.{producer}".encode()
