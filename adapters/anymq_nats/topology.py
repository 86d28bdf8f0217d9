"""Streams and durable consumers: found where they exist, made where they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nats.js.errors

from anymq.driver import SubscribeSpec, TopicSpec
from anymq.errors import ConfigurationError

from .link import Link
from .names import consumer_name, encode, later_pattern, private_pattern, private_subject
from .options import NatsOptions

_NANO = 1_000_000_000
_NAME_IN_USE = 10058
_CONSUMER_EXISTS = 10148
_MARK = {"anymq": "1"}

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream that holds a topic, and which of anymq's techniques it has room for."""

    name: str
    subject: str
    copies: bool
    """Whether it takes the private subjects on which copies come back to one group."""
    schedules: bool
    """Whether it delivers messages at a time."""

    @classmethod
    def of(cls, config: Config, subject: str) -> Stream:
        subjects = config.get("subjects") or []
        copies = private_pattern(subject) in subjects
        later = later_pattern(subject) in subjects and bool(config.get("allow_msg_ttl"))
        schedules = bool(config.get("allow_msg_schedules"))
        return cls(str(config["name"]), subject, copies, copies and later and schedules)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer: one group."""

    name: str
    stream: Stream
    lease: float
    """Seconds after which the server gives an unsettled message to another member."""
    max_batch: int
    """The most messages it gives for one request; 0: any number."""
    private: str | None
    """The subject that only this group receives, if it has one."""


async def find_stream(link: Link, subject: str) -> Stream:
    """Return the stream that stores `subject`; raises `NotFoundError`."""
    return Stream.of(await _stream_of(link, subject), subject)


async def _stream_of(link: Link, subject: str) -> Config:
    found = await link.api("STREAM.NAMES", {"subject": subject})
    for name in found.get("streams") or ():
        config: Config = (await link.api(f"STREAM.INFO.{name}"))["config"]
        return config
    raise nats.js.errors.NotFoundError(
        code=404, description=f"no JetStream stream stores the subject {subject!r}"
    )


async def make_stream(link: Link, spec: TopicSpec, options: NatsOptions) -> Stream:
    """Return the stream that stores the topic, having made it where there was none."""
    config = _stream_config(spec, options)
    try:
        existing = await _stream_of(link, spec.native)
    except nats.js.errors.NotFoundError:
        return await _make(link, spec, config)
    found = Stream.of(existing, spec.native)
    if found.schedules or "anymq" not in existing.get("metadata", {}) or not _can_schedule(link):
        return found
    # Made by anymq on a server that could not schedule messages yet.
    keys = ("subjects", "allow_msg_ttl", "allow_msg_schedules")
    wanted = {**existing, **{key: config[key] for key in keys}}
    saved = await link.api(f"STREAM.UPDATE.{found.name}", wanted)
    return Stream.of(saved["config"], spec.native)


def _can_schedule(link: Link) -> bool:
    version = link.client.connected_server_version
    return (version.major, version.minor) >= (2, 12)


async def _make(link: Link, spec: TopicSpec, config: Config) -> Stream:
    try:
        made = await link.api(f"STREAM.CREATE.{config['name']}", config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        # Another process was faster, with other options; or the name is somebody else's.
        return await find_stream(link, spec.native)
    return Stream.of(made["config"], spec.native)


def _stream_config(spec: TopicSpec, options: NatsOptions) -> Config:
    subject = spec.native
    age = options.max_age if spec.retention is None else spec.retention
    window = min(options.duplicate_window, age) if age else options.duplicate_window
    return {
        "name": encode(subject),
        "subjects": [subject, private_pattern(subject), later_pattern(subject)],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": int(age * _NANO),
        "duplicate_window": int(window * _NANO),
        "num_replicas": options.replicas,
        # Older servers ignore what they do not know.
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
        "metadata": _MARK,
    }


async def make_consumer(link: Link, stream: Stream, spec: SubscribeSpec) -> Consumer:
    """Return the durable consumer of the group, having made it where there was none."""
    name = consumer_name(spec.native_group, spec.topic.name, spec.group or "")
    path = f"{stream.name}.{name}"
    try:
        config = (await link.api(f"CONSUMER.INFO.{path}"))["config"]
    except nats.js.errors.NotFoundError:
        if not spec.create:
            raise
        config = await _create(link, stream, name, spec)
    wanted = _changes(config, stream, name, spec)
    if spec.create and wanted:
        config = await _save(link, stream, {**config, **wanted}, "update")
    _check(config, name, spec)
    return _consumer(config, stream, name)


async def _create(link: Link, stream: Stream, name: str, spec: SubscribeSpec) -> Config:
    config: Config = {
        "durable_name": name,
        "name": name,
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_deadline * _NANO),
        "deliver_policy": "all" if spec.start == "earliest" else "new",
        "replay_policy": "instant",
        "filter_subjects": _filters(stream, name),
        "max_deliver": -1,
        # Messages under a delayed NAK count against it (nats-server #6093); the core bounds what
        # is in flight.
        "max_ack_pending": -1,
        "metadata": _MARK,
    }
    try:
        return await _save(link, stream, config, "create")
    except nats.js.errors.APIError as error:
        if error.err_code != _CONSUMER_EXISTS:
            raise
    existing: Config = (await link.api(f"CONSUMER.INFO.{stream.name}.{name}"))["config"]
    return existing


async def _save(link: Link, stream: Stream, config: Config, action: str) -> Config:
    body = {"stream_name": stream.name, "config": config, "action": action}
    answer = await link.api(f"CONSUMER.CREATE.{stream.name}.{config['name']}", body)
    saved: Config = answer["config"]
    return saved


def _filters(stream: Stream, name: str) -> list[str]:
    return (
        [stream.subject, private_subject(stream.subject, name)]
        if stream.copies
        else [stream.subject]
    )


def _changes(config: Config, stream: Stream, name: str, spec: SubscribeSpec) -> Config:
    """What to change in the existing consumer of a group that anymq made."""
    changes: Config = {}
    if config.get("metadata", {}).get("anymq") is None:
        return changes
    if config.get("ack_wait") != int(spec.ack_deadline * _NANO):
        changes["ack_wait"] = int(spec.ack_deadline * _NANO)
    if stream.copies and private_subject(stream.subject, name) not in _subjects(config):
        changes |= {"filter_subjects": _filters(stream, name), "filter_subject": ""}
    return changes


def _subjects(config: Config) -> list[str]:
    one = config.get("filter_subject")
    return [one] if one else list(config.get("filter_subjects") or ())


def _check(config: Config, name: str, spec: SubscribeSpec) -> None:
    """Refuse a consumer with which the delivery contract cannot be kept."""
    lease = config.get("ack_wait", 0) / _NANO
    problem = ""
    if config.get("deliver_subject"):
        problem = "it is a push consumer; a pull consumer is needed"
    elif config.get("ack_policy") != "explicit":
        problem = f"its ack_policy is {config.get('ack_policy')!r}; 'explicit' is needed"
    elif config.get("max_deliver", -1) > 0:
        problem = "its max_deliver would lose messages; it must be -1"
    elif lease < spec.ack_deadline:
        problem = f"its ack_wait of {lease:g} s is less than ack_deadline={spec.ack_deadline:g}"
    if problem:
        raise ConfigurationError(f"the consumer {name!r} cannot be used: {problem}")


def _consumer(config: Config, stream: Stream, name: str) -> Consumer:
    private = private_subject(stream.subject, name)
    return Consumer(
        name=name,
        stream=stream,
        lease=config["ack_wait"] / _NANO,
        max_batch=int(config.get("max_batch") or 0),
        private=private if stream.copies and private in _subjects(config) else None,
    )
