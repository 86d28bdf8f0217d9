"""Streams: found where they exist, made where they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nats.js.errors

from anymq.driver import ConfigurationError, TopicSpec

from .connection import Link
from .jetstream.schema import (
    cell_subject,
    cells_stream,
    check_subject,
    due_patterns,
    due_subject,
    encode,
    later_pattern,
    later_stream,
    partition_patterns,
    partition_subject,
    private_pattern,
)
from .options import NatsOptions

NANO = 1_000_000_000
MARK = "anymq"
_PARTITIONS = "anymq-partitions"
_NAME_IN_USE = 10058
_SCHEDULING: Mapping[str, bool] = {"allow_msg_ttl": True, "allow_msg_schedules": True}
# Seconds, far longer than the server takes to copy what has become due.
_COPIED = 24 * 3600

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
    apart: bool
    """Whether what waits for its time is in a stream of its own, and comes from there when due."""

    @classmethod
    def of(cls, config: Config, subject: str) -> Stream:
        subjects = config.get("subjects") or []
        count, name = _partitions(config), str(config["name"])
        copies = private_pattern(subject) in subjects
        apart = _is_apart(config)
        later = later_pattern(subject) in subjects and bool(config.get("allow_msg_ttl"))
        schedules = bool(config.get("allow_msg_schedules"))
        mine = {*_subjects(subject, count), later_pattern(subject)}
        return cls(
            name=name,
            subject=subject,
            partitions=count,
            copies=copies,
            schedules=copies and (apart or (later and schedules)),
            alone=set(subjects) <= mine,
            apart=apart,
        )

    @property
    def patterns(self) -> list[str]:
        """What covers the subjects of all partitions."""
        return partition_patterns(self.subject, self.partitions)

    @property
    def later(self) -> str:
        """The stream that holds what waits for its time."""
        return later_stream(self.name) if self.apart else self.name

    def when_due(self, target: str) -> str:
        """Return where the server shall put what is for the subject `target`."""
        return due_subject(self.subject, target) if self.apart else target

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
    return [*partition_patterns(subject, count), private_pattern(subject)]


def _is_apart(config: Config) -> bool:
    apart = later_stream(config["name"])
    return any(source["name"] == apart for source in config.get("sources") or ())


def _together(subject: str, count: int) -> Config:
    """How a stream keeps what waits itself. Older servers ignore what they do not know."""
    subjects = [*_subjects(subject, count), later_pattern(subject)]
    return {"subjects": subjects, **_SCHEDULING}


def _apart(name: str, subject: str, count: int) -> Config:
    """How a stream gets what was waiting from another: the server copies it, each once."""
    copied = [
        {"src": due_subject(subject, pattern), "dest": pattern.replace("*", "{{wildcard(1)}}")}
        for pattern in _subjects(subject, count)
    ]
    source = {"name": later_stream(name), "subject_transforms": copied}
    return {"subjects": _subjects(subject, count), "sources": [source]}


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
    if changes := _changes(link, existing, spec):
        saved = await link.api(f"STREAM.UPDATE.{found.name}", {**existing, **changes})
        found = Stream.of(saved["config"], spec.native)
    if found.apart:
        await _make_later(link, found, options)
    return found


def _changes(link: Link, existing: Config, spec: TopicSpec) -> Config:
    """What to change in a stream that anymq made."""
    if MARK not in (existing.get("metadata") or {}):
        return {}
    changes: Config = {}
    schedules = _is_apart(existing) or existing.get("allow_msg_schedules")
    if not schedules and _can_schedule(link):
        # Made on a server that could not schedule messages yet.
        changes |= _together(spec.native, _partitions(existing))
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
    count, name = spec.partitions or 1, encode(spec.native)
    apart = spec.retention_bytes is not None and _can_schedule(link)
    config: Config = {
        "name": name,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": options.replicas,
        "metadata": {MARK: "1", **({_PARTITIONS: str(count)} if count > 1 else {})},
        **_limits(spec, options.max_age, options.duplicate_window),
        **(_apart(name, spec.native, count) if apart else _together(spec.native, count)),
    }
    made = await _create(link, config)
    # Otherwise another process was faster, with other options; or the name is somebody else's.
    return made or await stream_config(link, spec.native)


async def _create(link: Link, config: Config) -> Config | None:
    """Create a stream, and return its configuration; None if there is one of that name."""
    try:
        made = await link.api(f"STREAM.CREATE.{config['name']}", config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        return None
    created: Config = made["config"]
    return created


async def _make_later(link: Link, stream: Stream, options: NatsOptions) -> None:
    """Make the stream of what waits, if there is none: its topic's bound of bytes is not its own.

    A waiting message never ages; one whose time has come is kept long enough to be copied.
    """
    patterns = [later_pattern(stream.subject), *due_patterns(stream.subject)]
    limits = {"max_age": _COPIED * NANO, "duplicate_window": int(options.duplicate_window * NANO)}
    await _auxiliary(link, options, stream.later, patterns, {**limits, **_SCHEDULING})


async def _auxiliary(
    link: Link, options: NatsOptions, name: str, subjects: list[str], config: Config
) -> None:
    try:
        await link.api(f"STREAM.INFO.{name}")
    except nats.js.errors.NotFoundError:
        common: Config = {
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "num_replicas": options.replicas,
            "metadata": {MARK: "1"},
        }
        await _create(link, {**common, **config})


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
    subjects = [cell_subject(stream.name, "")]
    latest = {"max_msgs_per_subject": 1}
    await _auxiliary(link, options, cells_stream(stream.name), subjects, latest)


async def purge(link: Link, stream: str, pattern: str | None = None) -> None:
    """Delete what a stream holds, or what of it matches `pattern`; no error if there is none."""
    try:
        await link.api(f"STREAM.PURGE.{stream}", {"filter": pattern} if pattern else None)
    except nats.js.errors.NotFoundError:
        return
