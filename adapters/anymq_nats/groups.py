"""Durable consumers, one a group: found where they exist, made where they may be."""

from __future__ import annotations

import re
from dataclasses import dataclass

import nats.js.errors

from anymq.driver import ConfigurationError, SubscribeSpec

from .connection import Link
from .jetstream.presence import members
from .jetstream.schema import consumer_name, private_subject
from .positions import first_sequence, starting
from .topology import MARK, NANO, Config, Stream

ORDERED = "anymq-ordered"
GROUP = "anymq-group"
_CONSUMER_EXISTS = 10148


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer: one group."""

    name: str
    stream: Stream
    lease: float
    """Seconds after which the server gives an unsettled message to another member: that of the
    member with the longest `ack_deadline`, since there is one for the whole group."""
    max_batch: int
    """The most messages it gives for one request; 0: any number."""
    private: str | None
    """The subject that only this group receives, if it has one."""
    done: int
    """The sequence up to which the group had settled everything when this member joined."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The durable consumer that stands for an ordered group and delivers nothing.

    It says durably that the group exists, of which kind it is, and where it began: at sequence
    `first`. `epoch` names this incarnation of the group; another one has other cells.
    """

    name: str
    stream: Stream
    first: int
    epoch: str

    @classmethod
    def of(cls, info: Config, stream: Stream) -> Marker:
        config = info["config"]
        epoch = re.sub(r"\D", "", info["created"])
        return cls(config["name"], stream, max(config.get("opt_start_seq", 0), 1), epoch)


async def make_consumer(link: Link, stream: Stream, spec: SubscribeSpec) -> Consumer:
    """Return the durable consumer of the group, having made it where there was none."""
    name = consumer_name(spec.native_group)
    info = await _find_or_create(link, stream, name, spec)
    config = info["config"]
    wanted = _changes(config, stream, name, spec)
    shorter = wanted.get("ack_wait", 0) < config.get("ack_wait", 0)
    if "ack_wait" in wanted and shorter and await members(link, stream.name, name):
        # They extend by their own clocks, and would be robbed of what they are working on.
        del wanted["ack_wait"]
    if spec.create and wanted:
        config = (await save(link, stream, {**config, **wanted}, "update"))["config"]
    _check(config, name, spec)
    return _consumer(config, stream, name, done=int(info["ack_floor"]["stream_seq"]))


async def make_marker(link: Link, stream: Stream, spec: SubscribeSpec) -> Marker:
    """Return the marker of the ordered group, having made it where there was none."""
    name = consumer_name(spec.native_group)
    info = await _find_or_create(link, stream, name, spec)
    if not is_ordered(info["config"]):
        raise ConfigurationError(f"the group {spec.native_group!r} exists and is not ordered")
    return Marker.of(info, stream)


def is_ordered(config: Config) -> bool:
    """Whether the durable consumer stands for an ordered group."""
    return ORDERED in (config.get("metadata") or {})


async def _find_or_create(link: Link, stream: Stream, name: str, spec: SubscribeSpec) -> Config:
    path = f"{stream.name}.{name}"
    try:
        return await link.api(f"CONSUMER.INFO.{path}")
    except nats.js.errors.NotFoundError:
        if not spec.create:
            raise
    first = await first_sequence(link, stream.name, spec.start)
    try:
        return await save(link, stream, _config(stream, name, spec, first), "create")
    except nats.js.errors.APIError as error:
        if error.err_code != _CONSUMER_EXISTS:
            raise
    return await link.api(f"CONSUMER.INFO.{path}")


def _config(stream: Stream, name: str, spec: SubscribeSpec, first: int) -> Config:
    config: Config = {
        "durable_name": name,
        "name": name,
        "replay_policy": "instant",
        "metadata": {MARK: "1", GROUP: spec.native_group},
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
        # Messages under a delayed NAK count against it (nats-server #6093); the core bounds what
        # is in flight.
        "max_ack_pending": -1,
    }


async def save(link: Link, stream: Stream, config: Config, action: str) -> Config:
    """Create or update a durable consumer, and return what the server says of it."""
    body = {"stream_name": stream.name, "config": config, "action": action}
    return await link.api(f"CONSUMER.CREATE.{stream.name}.{config['name']}", body)


def _filters(stream: Stream, name: str) -> list[str]:
    private = [private_subject(stream.subject, name)] if stream.copies else []
    return [*stream.patterns, *private]


def _changes(config: Config, stream: Stream, name: str, spec: SubscribeSpec) -> Config:
    """What to change in the existing consumer of a group that anymq made."""
    changes: Config = {}
    if MARK not in (config.get("metadata") or {}) or is_ordered(config):
        return changes
    if config.get("ack_wait") != int(spec.ack_deadline * NANO):
        changes["ack_wait"] = int(spec.ack_deadline * NANO)
    if stream.copies and private_subject(stream.subject, name) not in subjects_of(config):
        changes |= {"filter_subjects": _filters(stream, name), "filter_subject": ""}
    return changes


def subjects_of(config: Config) -> list[str]:
    """Return the subjects that a consumer receives; none where it receives all of its stream."""
    one = config.get("filter_subject")
    return [one] if one else list(config.get("filter_subjects") or ())


def _check(config: Config, name: str, spec: SubscribeSpec) -> None:
    """Refuse a consumer with which the delivery contract cannot be kept."""
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
