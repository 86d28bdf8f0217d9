"""Streams: found where they exist, made where they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nats.js.errors

from anymq.driver import TopicSpec
from anymq.errors import ConfigurationError

from .link import Link
from .names import (
    cell_subject,
    cells_stream,
    check_subject,
    encode,
    later_pattern,
    partition_patterns,
    partition_subject,
    private_pattern,
)
from .options import NatsOptions

NANO = 1_000_000_000
MARK = "anymq"
_PARTITIONS = "anymq-partitions"
_NAME_IN_USE = 10058

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream that holds a topic, and which of anymq's techniques it has room for."""

    name: str
    subject: str
    partitions: int
    copies: bool
    """Whether it takes the private subjects on which copies come back to one group."""
    schedules: bool
    """Whether it delivers messages at a time."""
    alone: bool
    """Whether it holds nothing else."""

    @classmethod
    def of(cls, config: Config, subject: str) -> Stream:
        subjects = config.get("subjects") or []
        count = _partitions(config)
        copies = private_pattern(subject) in subjects
        later = later_pattern(subject) in subjects and bool(config.get("allow_msg_ttl"))
        schedules = bool(config.get("allow_msg_schedules"))
        return cls(
            name=str(config["name"]),
            subject=subject,
            partitions=count,
            copies=copies,
            schedules=copies and later and schedules,
            alone=set(subjects) <= set(_subjects(subject, count)),
        )

    @property
    def patterns(self) -> list[str]:
        """What covers the subjects of all partitions."""
        return partition_patterns(self.subject, self.partitions)

    def partition(self, number: int) -> str:
        """Return the subject of a partition."""
        return partition_subject(self.subject, self.partitions, number)

    def check(self, spec: TopicSpec) -> Stream:
        """Return this stream, unless it has another number of partitions than asked for."""
        if spec.partitions not in (None, self.partitions):
            raise ConfigurationError(
                f"the topic {spec.name!r} has {self.partitions} partitions, not {spec.partitions}: "
                "their number cannot change"
            )
        return self


def _partitions(config: Config) -> int:
    said = (config.get("metadata") or {}).get(_PARTITIONS, "1")
    if not said.isdecimal() or int(said) < 1:
        raise ConfigurationError(
            f"the stream {config['name']!r} has {said!r} partitions in its metadata"
        )
    return int(said)


def _subjects(subject: str, count: int) -> list[str]:
    return [*partition_patterns(subject, count), private_pattern(subject), later_pattern(subject)]


async def find_stream(link: Link, spec: TopicSpec) -> Stream:
    """Return the stream that stores the topic; raises `NotFoundError`."""
    return Stream.of(await stream_config(link, spec.native), spec.native).check(spec)


async def stream_config(link: Link, subject: str) -> Config:
    """Return how the stream that stores `subject` was made; raises `NotFoundError`."""
    check_subject(subject)
    found = await link.api("STREAM.NAMES", {"subject": subject})
    for name in found.get("streams") or ():
        config: Config = (await link.api(f"STREAM.INFO.{name}"))["config"]
        return config
    raise nats.js.errors.NotFoundError(
        code=404, description=f"no JetStream stream stores the subject {subject!r}"
    )


async def make_stream(link: Link, spec: TopicSpec, options: NatsOptions) -> Stream:
    """Return the stream that stores the topic, having made it where there was none."""
    try:
        existing = await stream_config(link, spec.native)
    except nats.js.errors.NotFoundError:
        existing = await _make(link, spec, options)
    found = Stream.of(existing, spec.native).check(spec)
    changes = _changes(link, existing, spec)
    if not changes:
        return found
    saved = await link.api(f"STREAM.UPDATE.{found.name}", {**existing, **changes})
    return Stream.of(saved["config"], spec.native)


def _changes(link: Link, existing: Config, spec: TopicSpec) -> Config:
    """What to change in a stream that anymq made."""
    if MARK not in (existing.get("metadata") or {}):
        return {}
    changes: Config = {}
    if not existing.get("allow_msg_schedules") and _can_schedule(link):
        # Made on a server that could not schedule messages yet.
        changes |= {"subjects": _subjects(spec.native, _partitions(existing)), **_SCHEDULING}
    wanted = _limits(spec, existing["max_age"] / NANO, existing["duplicate_window"] / NANO)
    if spec.retention_bytes is None:
        del wanted["max_bytes"]
    if spec.retention is not None or spec.retention_bytes is not None:
        changes |= {key: value for key, value in wanted.items() if existing.get(key) != value}
    return changes


def _can_schedule(link: Link) -> bool:
    version = link.client.connected_server_version
    return (version.major, version.minor) >= (2, 12)


async def _make(link: Link, spec: TopicSpec, options: NatsOptions) -> Config:
    count = spec.partitions or 1
    config: Config = {
        "name": encode(spec.native),
        "subjects": _subjects(spec.native, count),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": options.replicas,
        "metadata": {MARK: "1", **({_PARTITIONS: str(count)} if count > 1 else {})},
        **_limits(spec, options.max_age, options.duplicate_window),
        **_SCHEDULING,
    }
    try:
        made = await link.api(f"STREAM.CREATE.{config['name']}", config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        # Another process was faster, with other options; or the name is somebody else's.
        return await stream_config(link, spec.native)
    created: Config = made["config"]
    return created


# Older servers ignore what they do not know.
_SCHEDULING: Mapping[str, bool] = {"allow_msg_ttl": True, "allow_msg_schedules": True}


def _limits(spec: TopicSpec, max_age: float, duplicate_window: float) -> Config:
    age = max_age if spec.retention is None else spec.retention
    window = min(duplicate_window, age) if age else duplicate_window
    return {
        "max_age": int(age * NANO),
        "duplicate_window": int(window * NANO),
        "max_bytes": spec.retention_bytes or -1,
    }


async def make_cells(link: Link, stream: Stream, options: NatsOptions) -> None:
    """Make the stream that keeps the places of the topic's ordered groups, if there is none.

    It keeps the latest message of each subject, for ever.
    """
    name = cells_stream(stream.name)
    config = {
        "name": name,
        "subjects": [cell_subject(stream.name, "")],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "num_replicas": options.replicas,
        "metadata": {MARK: "1"},
    }
    try:
        await link.api(f"STREAM.INFO.{name}")
    except nats.js.errors.NotFoundError:
        try:
            await link.api(f"STREAM.CREATE.{name}", config)
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise


async def purge(link: Link, stream: str, pattern: str | None = None) -> None:
    """Delete what a stream holds, or what of it matches `pattern`; no error if there is none."""
    try:
        await link.api(f"STREAM.PURGE.{stream}", {"filter": pattern} if pattern else None)
    except nats.js.errors.NotFoundError:
        return
