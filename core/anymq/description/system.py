"""What applications receive and send, as their handlers and declarations say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, is_typeddict

from ..app import App
from ..message import Message
from ..middleware import DeadLetter
from ..payload import is_union, names_of
from ..subscriber import Subscriber
from ..topic import Topic, dead_letter_topic
from ..url import URL


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of message of a topic: its CloudEvents types and the class of its payload.

    A message is published with the first of `types`. `payload` is `Any` where nothing is declared.
    """

    name: str
    types: tuple[str, ...]
    payload: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """The handlers of one service that share the messages of a group."""

    topic: Topic[Any]
    group: str | None
    handlers: tuple[Subscriber, ...]
    types: tuple[EventType, ...]
    dead_letters: str | None

    @property
    def takes_all(self) -> bool:
        """Whether a message of a type that no handler takes is handled or acked all the same."""
        options = self.handlers[0].options
        return options.unknown == "ignore" or not all(map(has_types, self.types))


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A topic that a service publishes to; `handler` is the one whose results go there."""

    topic: Topic[Any]
    types: tuple[EventType, ...]
    handler: Subscriber | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One application. `url` is None if none is known."""

    name: str
    version: str | None
    url: URL | None
    names: Mapping[str, str] = field(default_factory=dict)
    receives: tuple[Receive, ...] = ()
    sends: tuple[Send, ...] = ()


def service(app: App, *, name: str, url: URL | None = None) -> Service:
    """Return what `app`, on the broker at `url`, receives and sends; `name` if it has none."""
    return Service(
        name=app.name or name,
        version=app.version,
        url=url,
        names=app.names,
        receives=tuple(_receives(app.subscribers)),
        sends=tuple(_sends(app)),
    )


def name_of(handler: Subscriber) -> str:
    """Return the name of the handler's function."""
    name = getattr(handler.function, "__qualname__", type(handler.function).__qualname__)
    return str(name).rpartition("<locals>.")[2]


def has_types(event: EventType) -> bool:
    """Whether messages are told by their type: those of plain data have the topic's name."""
    return isinstance(event.payload, type) and event.payload.__module__ != "builtins"


def event_types(topic: Topic[Any], annotation: Any) -> tuple[EventType, ...]:
    """Return the types of message that a payload annotated so has on `topic`."""
    if annotation is None:
        annotation = topic.payload
    if annotation in (None, Any, Message):
        return (EventType(topic.name, (topic.name,), Any),)
    members = get_args(annotation) if is_union(annotation) else (annotation,)
    return tuple(_event_type(topic, each) for each in members if each is not type(None))


def _event_type(topic: Topic[Any], kind: Any) -> EventType:
    own = isinstance(kind, type) and kind.__module__ != "builtins"
    name = kind.__name__ if own else topic.name
    if own and not is_typeddict(kind):
        return EventType(name, tuple(dict.fromkeys(names_of(kind))), kind)
    return EventType(name, (topic.name, name) if own else (topic.name,), kind)


def _receives(handlers: Iterable[Subscriber]) -> Iterator[Receive]:
    groups: dict[tuple[str, str | None], list[Subscriber]] = {}
    for handler in handlers:
        groups.setdefault((handler.topic.name, handler.group), []).append(handler)
    for (_, group), members in groups.items():
        topic = members[0].topic
        types = (each for handler in members for each in event_types(topic, handler.payload))
        yield Receive(
            topic=topic,
            group=group,
            handlers=tuple(members),
            types=tuple(dict.fromkeys(types)),
            dead_letters=_dead_letters(members[0]),
        )


def _dead_letters(handler: Subscriber) -> str | None:
    """Return the topic of the handler's dead letters; None if it has none."""
    for link in handler.options.middleware or ():
        if isinstance(link, DeadLetter):
            return link.topic or dead_letter_topic(handler.topic.name, handler.group)
    return None


def _sends(app: App) -> Iterator[Send]:
    for topic in dict.fromkeys(app.publishes):
        yield Send(topic=topic, types=event_types(topic, None))
    for handler in app.subscribers:
        if handler.to is not None:
            types = event_types(handler.to, handler.result)
            yield Send(topic=handler.to, types=types, handler=handler)
