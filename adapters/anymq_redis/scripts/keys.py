"""Which keys belong to a topic and to a group on it. All have the topic's key as their hash tag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicKeys:
    """The keys of one topic.

    `streams` are its partitions; the first has the topic's own name, so that a topic of one is
    a stream like any other. `about` is a hash of how it was declared. `delayed` is a sorted set of
    the records that wait, by the time when they are due, and `payloads` a hash with their content.
    `cells` is a hash of how far the ordered groups are.
    """

    streams: tuple[bytes, ...]
    about: bytes
    delayed: bytes
    payloads: bytes
    cells: bytes

    def prefix(self, partition: int) -> bytes:
        """Return what positions in `partition` begin with: nothing where there is only one."""
        return b"%d:" % partition if len(self.streams) > 1 else b""


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of one group on one topic.

    `group` is its name. `retry` is a stream of copies for this group alone; `delayed` and
    `payloads` are as a topic's, for copies that wait. `members` is a hash: when each was last
    seen, and since when it has held what it has held for longest, in milliseconds by the server.
    `starts` is a hash: of what is pending, how many handlers are known to have begun.
    """

    group: bytes
    retry: bytes
    delayed: bytes
    payloads: bytes
    members: bytes
    starts: bytes


def topic_keys(native: str, partitions: int) -> TopicKeys:
    """Return the keys of the topic that is called `native` on the server."""
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

    Consumer groups live inside a stream, so the group `billing` on `orders` is called just that.
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
    """Return the key that remembers the last publish of one producer to the topic `native`."""
    return f"{{{native}}}._sent.{producer}".encode()
