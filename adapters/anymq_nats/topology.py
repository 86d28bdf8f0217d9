"""Streams and durable consumers: topics and groups are found, or created where that is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import nats.js.errors

from anymq.driver import ConfigurationError, SubscribeSpec, TopicSpec

from .connection import Connection
from .jetstream.log import NANO, Config, starting
from .jetstream.presence import members
from .jetstream.schema import (
    cell_subject,
    cells_stream,
    check_subject,
    consumer_name,
    due_patterns,
    due_subject,
    encode,
    later_pattern,
    later_stream,
    partition_patterns,
    partition_subject,
    private_pattern,
    private_subject,
)
from .options import NatsOptions
from .positions import first_sequence

# Keys in the metadata of streams and consumers.
CREATED_BY_ANYMQ = "anymq"
GROUP = "anymq-group"
ORDERED = "anymq-ordered"
_PARTITIONS = "anymq-partitions"

# Error codes of JetStream.
_STREAM_EXISTS = 10058
_CONSUMER_EXISTS = 10148

_SCHEDULING: Mapping[str, bool] = {"allow_msg_ttl": True, "allow_msg_schedules": True}
_DUE_MAX_AGE_SECONDS = 24 * 3600
_SCHEDULING_VERSION = (2, 12)


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream that stores a topic, and the features that it supports."""

    name: str
    subject: str
    partitions: int
    copies: bool
    """Whether it has the private subjects, on which copies return to one group."""
    schedules: bool
    """Whether it delivers delayed messages."""
    alone: bool
    """Whether it stores nothing else."""
    apart: bool
    """Whether delayed messages are in a stream of their own until they are due."""

    @classmethod
    def of(cls, config: Config, subject: str) -> Stream:
        """Read the configuration of the stream that stores the topic `subject`."""
        subjects = config.get("subjects") or []
        count, name = _partitions(config), str(config["name"])
        copies = private_pattern(subject) in subjects
        apart = _is_apart(config)
        later = later_pattern(subject) in subjects and bool(config.get("allow_msg_ttl"))
        schedules = bool(config.get("allow_msg_schedules"))
        own = {*_subjects(subject, count), later_pattern(subject)}
        return cls(
            name=name,
            subject=subject,
            partitions=count,
            copies=copies,
            schedules=copies and (apart or (later and schedules)),
            alone=set(subjects) <= own,
            apart=apart,
        )

    @property
    def patterns(self) -> list[str]:
        """The patterns of the subjects of all partitions."""
        return partition_patterns(self.subject, self.partitions)

    @property
    def later(self) -> str:
        """The stream that stores delayed messages."""
        return later_stream(self.name) if self.apart else self.name

    def when_due(self, target: str) -> str:
        """Return the subject to which the server publishes a due message for `target`."""
        return due_subject(self.subject, target) if self.apart else target

    def partition(self, number: int) -> str:
        """Return the subject of a partition."""
        return partition_subject(self.subject, self.partitions, number)

    def check(self, spec: TopicSpec) -> Stream:
        """Return this stream; raises `ConfigurationError` if `spec` has other partitions."""
        if spec.partitions not in (None, self.partitions):
            raise ConfigurationError(
                f"the topic {spec.name!r} has {self.partitions} partitions, not {spec.partitions}: "
                "their number cannot change"
            )
        return self


@dataclass(frozen=True, slots=True)
class Consumer:
    """The durable pull consumer of one unordered group."""

    name: str
    stream: Stream
    lease: float
    """Seconds after which the server redelivers an unsettled message: the longest `ack_deadline`
    of the group's members, because the consumer has one for all."""
    max_batch: int
    """The most messages that it returns for one request; 0: any number."""
    private: str | None
    """The subject that only this group receives; None without one."""
    done: int
    """The sequence up to which the group had settled everything when this member joined."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The durable consumer that stands for an ordered group and delivers nothing.

    It records durably that the group exists, that it is ordered, and its start position, the
    sequence `first`. `epoch` names this incarnation of the group; another one has other cells.
    """

    name: str
    stream: Stream
    first: int
    epoch: str

    @classmethod
    def of(cls, info: Config, stream: Stream) -> Marker:
        """Read the server's information on the consumer."""
        config = info["config"]
        epoch = re.sub(r"\D", "", info["created"])
        return cls(config["name"], stream, max(config.get("opt_start_seq", 0), 1), epoch)


# Streams


async def find_stream(connection: Connection, spec: TopicSpec) -> Stream:
    """Return the stream that stores the topic; raises `NotFoundError`."""
    return Stream.of(await stream_config(connection, spec.native), spec.native).check(spec)


async def stream_config(connection: Connection, subject: str) -> Config:
    """Return the configuration of the stream that stores `subject`; raises `NotFoundError`."""
    check_subject(subject)
    found = await connection.api("STREAM.NAMES", {"subject": subject})
    for name in found.get("streams") or ():
        config: Config = (await connection.api(f"STREAM.INFO.{name}"))["config"]
        return config
    raise nats.js.errors.NotFoundError(
        code=404, description=f"no JetStream stream stores the subject {subject!r}"
    )


async def make_stream(connection: Connection, spec: TopicSpec, options: NatsOptions) -> Stream:
    """Return the stream that stores the topic; create it if there is none, update it if needed."""
    try:
        existing = await stream_config(connection, spec.native)
    except nats.js.errors.NotFoundError:
        existing = await _create_for(connection, spec, options)
    found = Stream.of(existing, spec.native).check(spec)
    if changes := _stream_changes(connection, existing, spec):
        saved = await connection.api(f"STREAM.UPDATE.{found.name}", {**existing, **changes})
        found = Stream.of(saved["config"], spec.native)
    if found.apart:
        await _make_later(connection, found, options)
    return found


async def make_cells(connection: Connection, stream: Stream, options: NatsOptions) -> None:
    """Create the stream of the topic's lease records and attempts, unless it exists.

    It keeps the latest message of each subject without limit.
    """
    subjects = [cell_subject(stream.name, "")]
    latest = {"max_msgs_per_subject": 1}
    await _make_auxiliary(connection, options, cells_stream(stream.name), subjects, latest)


async def purge(connection: Connection, stream: str, pattern: str | None = None) -> None:
    """Delete the messages of a stream, or those that match `pattern`; no error if it is absent."""
    try:
        await connection.api(f"STREAM.PURGE.{stream}", {"filter": pattern} if pattern else None)
    except nats.js.errors.NotFoundError:
        return


def _partitions(config: Config) -> int:
    found = (config.get("metadata") or {}).get(_PARTITIONS, "1")
    if not found.isdecimal() or int(found) < 1:
        raise ConfigurationError(
            f"the stream {config['name']!r} has {found!r} partitions in its metadata"
        )
    return int(found)


def _subjects(subject: str, count: int) -> list[str]:
    return [*partition_patterns(subject, count), private_pattern(subject)]


def _is_apart(config: Config) -> bool:
    apart = later_stream(config["name"])
    return any(source["name"] == apart for source in config.get("sources") or ())


def _with_delays(name: str, subject: str, count: int) -> Config:
    """Return the configuration of a stream that stores its delayed messages itself.

    Servers older than 2.12 ignore the fields that they do not know.
    """
    subjects = [*_subjects(subject, count), later_pattern(subject)]
    return {"subjects": subjects, **_SCHEDULING}


def _without_delays(name: str, subject: str, count: int) -> Config:
    """Return the configuration of a stream into which the server copies due messages."""
    copied = [
        {"src": due_subject(subject, pattern), "dest": pattern.replace("*", "{{wildcard(1)}}")}
        for pattern in _subjects(subject, count)
    ]
    source = {"name": later_stream(name), "subject_transforms": copied}
    return {"subjects": _subjects(subject, count), "sources": [source]}


def _stream_changes(connection: Connection, existing: Config, spec: TopicSpec) -> Config:
    """Return the changes to a stream that anymq created; none for others."""
    if CREATED_BY_ANYMQ not in (existing.get("metadata") or {}):
        return {}
    changes: Config = {}
    schedules = _is_apart(existing) or existing.get("allow_msg_schedules")
    if not schedules and _can_schedule(connection):
        # Created when the server was older than 2.12.
        changes |= _with_delays(existing["name"], spec.native, _partitions(existing))
    wanted = _limits(spec, existing["max_age"] / NANO, existing["duplicate_window"] / NANO)
    if spec.retention_bytes is None:
        del wanted["max_bytes"]
    if spec.retention is not None or spec.retention_bytes is not None:
        changes |= {key: value for key, value in wanted.items() if existing.get(key) != value}
    return changes


def _can_schedule(connection: Connection) -> bool:
    version = connection.client.connected_server_version
    return (version.major, version.minor) >= _SCHEDULING_VERSION


async def _create_for(connection: Connection, spec: TopicSpec, options: NatsOptions) -> Config:
    count, name = spec.partitions or 1, encode(spec.native)
    apart = spec.retention_bytes is not None and _can_schedule(connection)
    config: Config = {
        **_stream(name, options),
        **_limits(spec, options.max_age, options.duplicate_window),
        **(_without_delays if apart else _with_delays)(name, spec.native, count),
    }
    if count > 1:
        config["metadata"][_PARTITIONS] = str(count)
    made = await _create(connection, config)
    # If the name is in use, another process was faster, or the stream stores another topic.
    return made or await stream_config(connection, spec.native)


def _stream(name: str, options: NatsOptions) -> Config:
    """Return the configuration that all streams of anymq share."""
    return {
        "name": name,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": options.replicas,
        "metadata": {CREATED_BY_ANYMQ: "1"},
    }


async def _create(connection: Connection, config: Config) -> Config | None:
    """Create a stream and return its configuration; None if the name is in use."""
    try:
        made = await connection.api(f"STREAM.CREATE.{config['name']}", config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _STREAM_EXISTS:
            raise
        return None
    created: Config = made["config"]
    return created


async def _make_later(connection: Connection, stream: Stream, options: NatsOptions) -> None:
    """Create the stream of delayed messages, unless it exists.

    It has no bound of bytes. A delayed message never expires; a due one is kept for a day, far
    longer than the server needs to copy it.
    """
    patterns = [later_pattern(stream.subject), *due_patterns(stream.subject)]
    limits = {
        "max_age": _DUE_MAX_AGE_SECONDS * NANO,
        "duplicate_window": int(options.duplicate_window * NANO),
    }
    await _make_auxiliary(connection, options, stream.later, patterns, {**limits, **_SCHEDULING})


async def _make_auxiliary(
    connection: Connection, options: NatsOptions, name: str, subjects: list[str], config: Config
) -> None:
    try:
        await connection.api(f"STREAM.INFO.{name}")
    except nats.js.errors.NotFoundError:
        await _create(connection, {**_stream(name, options), "subjects": subjects, **config})


def _limits(spec: TopicSpec, max_age: float, duplicate_window: float) -> Config:
    age = max_age if spec.retention is None else spec.retention
    window = min(duplicate_window, age) if age else duplicate_window
    return {
        "max_age": int(age * NANO),
        "duplicate_window": int(window * NANO),
        "max_bytes": spec.retention_bytes or -1,
    }


# Durable consumers


async def make_consumer(connection: Connection, stream: Stream, spec: SubscribeSpec) -> Consumer:
    """Return the durable consumer of an unordered group; create it if there is none."""
    name = consumer_name(spec.native_group)
    info = await _find_or_create(connection, stream, name, spec)
    config = info["config"]
    wanted = _consumer_changes(config, stream, name, spec)
    shorter = wanted.get("ack_wait", 0) < config.get("ack_wait", 0)
    if "ack_wait" in wanted and shorter and await members(connection, stream.name, name):
        # Live members renew their leases by the longer one, and would lose their deliveries.
        del wanted["ack_wait"]
    if spec.create and wanted:
        config = (await save_consumer(connection, stream, {**config, **wanted}, "update"))["config"]
    _check_consumer(config, name, spec)
    return _consumer(config, stream, name, done=int(info["ack_floor"]["stream_seq"]))


async def make_marker(connection: Connection, stream: Stream, spec: SubscribeSpec) -> Marker:
    """Return the marker of an ordered group; create it if there is none."""
    name = consumer_name(spec.native_group)
    info = await _find_or_create(connection, stream, name, spec)
    if not is_ordered(info["config"]):
        raise ConfigurationError(f"the group {spec.native_group!r} exists and is not ordered")
    return Marker.of(info, stream)


def is_ordered(config: Config) -> bool:
    """Return whether a durable consumer is the marker of an ordered group."""
    return ORDERED in (config.get("metadata") or {})


def subjects_of(config: Config) -> list[str]:
    """Return the subjects that a consumer receives; empty if it receives all of its stream."""
    one = config.get("filter_subject")
    return [one] if one else list(config.get("filter_subjects") or ())


async def save_consumer(
    connection: Connection, stream: Stream, config: Config, action: str
) -> Config:
    """Create or update a durable consumer; return the server's information on it."""
    body = {"stream_name": stream.name, "config": config, "action": action}
    return await connection.api(f"CONSUMER.CREATE.{stream.name}.{config['name']}", body)


async def _find_or_create(
    connection: Connection, stream: Stream, name: str, spec: SubscribeSpec
) -> Config:
    path = f"{stream.name}.{name}"
    try:
        return await connection.api(f"CONSUMER.INFO.{path}")
    except nats.js.errors.NotFoundError:
        if not spec.create:
            raise
    first = await first_sequence(connection, stream.name, spec.start)
    try:
        config = _consumer_config(stream, name, spec, first)
        return await save_consumer(connection, stream, config, "create")
    except nats.js.errors.APIError as error:
        if error.err_code != _CONSUMER_EXISTS:
            raise
    return await connection.api(f"CONSUMER.INFO.{path}")


def _consumer_config(stream: Stream, name: str, spec: SubscribeSpec, first: int) -> Config:
    config: Config = {
        "durable_name": name,
        "name": name,
        "replay_policy": "instant",
        "metadata": {CREATED_BY_ANYMQ: "1", GROUP: spec.native_group},
        **starting(first),
    }
    if spec.ordered:
        config["metadata"][ORDERED] = "1"
        return {**config, "ack_policy": "none", "filter_subjects": stream.patterns}
    return {
        **config,
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_deadline * NANO),
        "filter_subjects": _filters(stream, name),
        "max_deliver": -1,
        # A limit would count messages under a delayed NAK (nats-server #6093). The core bounds
        # the messages in flight.
        "max_ack_pending": -1,
    }


def _filters(stream: Stream, name: str) -> list[str]:
    private = [private_subject(stream.subject, name)] if stream.copies else []
    return [*stream.patterns, *private]


def _consumer_changes(config: Config, stream: Stream, name: str, spec: SubscribeSpec) -> Config:
    """Return the changes to a consumer that anymq created; none for others."""
    changes: Config = {}
    if CREATED_BY_ANYMQ not in (config.get("metadata") or {}) or is_ordered(config):
        return changes
    if config.get("ack_wait") != int(spec.ack_deadline * NANO):
        changes["ack_wait"] = int(spec.ack_deadline * NANO)
    if stream.copies and private_subject(stream.subject, name) not in subjects_of(config):
        changes |= {"filter_subjects": _filters(stream, name), "filter_subject": ""}
    return changes


def _check_consumer(config: Config, name: str, spec: SubscribeSpec) -> None:
    """Raise `ConfigurationError` for a consumer that cannot keep the delivery contract."""
    lease = config.get("ack_wait", 0) / NANO
    problem = ""
    if is_ordered(config):
        problem = "its group is ordered"
    elif config.get("deliver_subject"):
        problem = "it is a push consumer; a pull consumer is needed"
    elif config.get("ack_policy") != "explicit":
        problem = f"its ack_policy is {config.get('ack_policy')!r}; 'explicit' is needed"
    elif config.get("max_deliver", -1) > 0:
        problem = "its max_deliver would lose messages; it must be -1"
    elif lease < spec.ack_deadline:
        problem = f"its ack_wait of {lease:g} s is less than ack_deadline={spec.ack_deadline:g}"
    if problem:
        raise ConfigurationError(f"the consumer {name!r} cannot be used: {problem}")


def _consumer(config: Config, stream: Stream, name: str, *, done: int) -> Consumer:
    private = private_subject(stream.subject, name)
    return Consumer(
        name=name,
        stream=stream,
        lease=config["ack_wait"] / NANO,
        max_batch=int(config.get("max_batch") or 0),
        private=private if stream.copies and private in subjects_of(config) else None,
        done=done,
    )
