"""Two AsyncAPI documents: what a consumer of one version cannot read of the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigurationError
from .changes import changes
from .judge import problems

Direction = Literal["backward", "forward"]
"""New consumers read old messages, or old consumers read new ones."""
DIRECTIONS: tuple[Direction, Direction] = ("backward", "forward")
WHO = {
    "backward": "new consumers cannot read old messages",
    "forward": "old consumers cannot read new messages",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between two versions; `breaks` is the side that it breaks, None for neither."""

    topic: str
    type: str | None
    path: str | None
    text: str
    breaks: Direction | None = None

    def __str__(self) -> str:
        where = " ".join(part for part in (self.topic, self.type, self.path) if part)
        return f"{where}: {self.text}" + (f" ({WHO[self.breaks]})" if self.breaks else "")


def compare(old: Any, new: Any, *, directions: Iterable[Direction] = DIRECTIONS) -> list[Change]:
    """Return the changes from one AsyncAPI 3 document to another, topic by topic.

    Raises `ConfigurationError` if one of them is none.
    """
    before, after = _Description(old, "the old document"), _Description(new, "the new document")
    found = list(dict.fromkeys(_compare(before, after, frozenset(directions))))
    return sorted(found, key=lambda each: (each.topic, each.type or "", each.path or ""))


@dataclass(slots=True)
class _Message:
    """A type of message: its CloudEvents types, and the schema of its payload.

    `name` is the type that it is published with.
    """

    name: str
    types: frozenset[str]
    content_type: str
    payload: Any


@dataclass(slots=True)
class _Group:
    """The consumers of a topic in one group of one service."""

    name: str
    types: frozenset[str]
    takes_all: bool

    def takes(self, kind: str) -> bool:
        """Whether messages of the CloudEvents type `kind` are handled."""
        return self.takes_all or kind in self.types


@dataclass(slots=True)
class _Topic:
    messages: dict[str, _Message] = field(default_factory=dict)
    groups: dict[str, _Group] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)

    def find(self, types: frozenset[str]) -> _Message | None:
        """Return the message that has one of `types`."""
        return next((each for each in self.messages.values() if each.types & types), None)


class _Description:
    """A document as the comparison reads it; what is not AsyncAPI 3 is refused."""

    def __init__(self, document: Any, what: str) -> None:
        if not isinstance(document, Mapping) or not str(document.get("asyncapi")).startswith("3."):
            raise ConfigurationError(f"{what} is no AsyncAPI 3 document")
        self.root: Mapping[str, Any] = document
        self.what = what
        try:
            self.topics = self._topics()
        except (AttributeError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{what} is no AsyncAPI 3 document: {error}") from error

    def _topics(self) -> dict[str, _Topic]:
        topics: dict[str, _Topic] = {}
        for name, reference in self.root.get("channels", {}).items():
            channel = self._resolved(reference)
            topic = topics[name] = _Topic()
            for key, each in channel.get("messages", {}).items():
                message = self._resolved(each)
                if "payload" in message:
                    topic.messages[key] = self._message(name, key, message)
        for key, reference in self.root.get("operations", {}).items():
            self._operation(topics, key, self._resolved(reference))
        return topics

    def _message(self, topic: str, key: str, message: Mapping[str, Any]) -> _Message:
        payload = message["payload"]
        if isinstance(payload, Mapping) and "schemaFormat" in payload and "schema" in payload:
            payload = payload["schema"]
        types: set[str] = {message.get("name", key)}
        headers = message.get("headers", {})
        for name, schema in headers.get("properties", {}).items():
            if re.fullmatch(r"(ce[-_]|cloudEvents[:_])type", name):
                types |= set(schema.get("enum", ()))
        default = self.root.get("defaultContentType", "application/json")
        name = message.get("name", key)
        return _Message(name, frozenset(types), message.get("contentType", default), payload)

    def _operation(self, topics: dict[str, _Topic], key: str, operation: Mapping[str, Any]) -> None:
        topic = topics[_last(operation["channel"]["$ref"])]
        all_keys = [{"$ref": each} for each in topic.messages]
        keys = [_last(each["$ref"]) for each in operation.get("messages", all_keys)]
        if operation["action"] == "send":
            topic.sent.update(each for each in keys if each in topic.messages)
            return
        types = frozenset[str]().union(
            *(topic.messages[each].types for each in keys if each in topic.messages)
        )
        about = operation.get("x-anymq", {})
        name = about.get("group") or key
        takes_all = about.get("unknownTypes") == "accepted" or not types
        if name in topic.groups:
            types |= topic.groups[name].types
            takes_all = takes_all or topic.groups[name].takes_all
        topic.groups[name] = _Group(name, types, takes_all)

    def _resolved(self, node: Any) -> Mapping[str, Any]:
        """Return `node`, or what its reference leads to."""
        for _ in range(10):
            if "$ref" not in node:
                return node  # type: ignore[no-any-return]
            reference = node["$ref"]
            node = self.root
            for step in str(reference).removeprefix("#").split("/")[1:]:
                node = node[step.replace("~1", "/").replace("~0", "~")]
        raise ConfigurationError(f"{self.what} has references in a circle")


def _last(reference: str) -> str:
    return reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _compare(
    before: _Description, after: _Description, directions: frozenset[Direction]
) -> Iterator[Change]:
    for name in sorted(before.topics.keys() | after.topics.keys()):
        old, new = before.topics.get(name), after.topics.get(name)
        if old is None or new is None:
            yield from _one_sided(name, old, new, directions)
            continue
        yield from _groups(name, old, new, directions)
        yield from _types(name, old, new, directions)
        for message in old.messages.values():
            if (successor := new.find(message.types)) is not None:
                yield from _payloads(name, message, successor, before, after, directions)


def _one_sided(
    name: str, old: _Topic | None, new: _Topic | None, directions: frozenset[Direction]
) -> Iterator[Change]:
    if old is None:
        yield Change(name, None, None, "added")
    elif old.groups and "backward" in directions:
        yield Change(name, None, None, "removed, with its consumers", "backward")
    else:
        yield Change(name, None, None, "removed")


def _groups(
    name: str, old: _Topic, new: _Topic, directions: frozenset[Direction]
) -> Iterator[Change]:
    for key in sorted(old.groups.keys() | new.groups.keys()):
        if key not in new.groups:
            last = not new.groups and "backward" in directions
            text = f"{key} no longer consumes" + (", and nobody else does" if last else "")
            yield Change(name, None, None, text, "backward" if last else None)
        elif key not in old.groups:
            yield Change(name, None, None, f"{key} consumes")


def _types(
    name: str, old: _Topic, new: _Topic, directions: frozenset[Direction]
) -> Iterator[Change]:
    """Yield the types that one version sends or takes and the other does not know."""
    for message in old.messages.values():
        for key, group in new.groups.items():
            was = old.groups.get(key)
            if was is None or group.takes(message.name) or not was.takes(message.name):
                continue
            if "backward" in directions:
                text = f"{key} no longer takes this type"
                yield Change(name, message.name, None, text, "backward")
        if new.find(message.types) is None:
            yield Change(name, message.name, None, "removed")
    already = {old.messages[key].name for key in old.sent}
    for key in sorted(new.sent):
        message = new.messages[key]
        if message.name in already:
            continue
        refusing = [each.name for each in old.groups.values() if not each.takes(message.name)]
        if refusing and "forward" in directions:
            text = f"sent, but {', '.join(sorted(refusing))} did not take this type"
            yield Change(name, message.name, None, text, "forward")
    for message in new.messages.values():
        if old.find(message.types) is None:
            yield Change(name, message.name, None, "added")


def _payloads(
    topic: str,
    old: _Message,
    new: _Message,
    before: _Description,
    after: _Description,
    directions: frozenset[Direction],
) -> Iterator[Change]:
    if old.content_type != new.content_type:
        text = f"content type {old.content_type} → {new.content_type}"
        for direction in DIRECTIONS:
            if direction in directions:
                yield Change(topic, new.name, None, text, direction)
        return
    broken: set[str] = set()
    try:
        for direction, written, read, written_in, read_in in (
            ("backward", old.payload, new.payload, before.root, after.root),
            ("forward", new.payload, old.payload, after.root, before.root),
        ):
            if direction not in directions:
                continue
            for each in problems(written, read, written_in=written_in, read_in=read_in):
                broken.add(each.path)
                yield Change(topic, new.name, each.path, each.reason, _direction(direction))
        found = changes(old.payload, new.payload, old_in=before.root, new_in=after.root)
    except (AttributeError, TypeError, ValueError, ArithmeticError, re.error) as error:
        raise ConfigurationError(
            f"the payload of {old.name} on {topic} is no JSON schema: {error}"
        ) from error
    for path, text in found:
        if path not in broken:
            yield Change(topic, new.name, path, text)


def _direction(name: str) -> Direction:
    return "backward" if name == "backward" else "forward"
