"""Which keys belong to a topic and to a group on it."""

from __future__ import annotations

from dataclasses import dataclass

from anymq.driver import SubscribeSpec


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of one group on one topic.

    All of them carry the topic's key as their hash tag. `retry` is a stream of copies for this
    group alone, `delayed` a sorted set of the copies that wait, by the time when they are due, and
    `payloads` a hash with their content.
    """

    stream: bytes
    group: bytes
    retry: bytes
    delayed: bytes
    payloads: bytes


def group_keys(spec: SubscribeSpec) -> GroupKeys:
    """Return the keys of the group that `spec` names.

    Consumer groups live inside a stream, so the group `billing` on `orders` is called just that.
    """
    stream = spec.topic.native
    group = spec.native_group.removeprefix(f"{spec.topic.name}.")
    prefix = f"{{{stream}}}.{group}."
    return GroupKeys(
        stream=stream.encode(),
        group=group.encode(),
        retry=f"{prefix}_retry".encode(),
        delayed=f"{prefix}_delayed".encode(),
        payloads=f"{prefix}_payloads".encode(),
    )


def fence_key(stream: str, producer: str) -> bytes:
    """Return the key that remembers the last publish of one producer to `stream`."""
    return f"{{{stream}}}._sent.{producer}".encode()
