"""An AsyncAPI 3.0 document of services."""

from __future__ import annotations

import inspect
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from .. import __version__
from ..topic import Topic
from .headers import cloudevents_trait, dead_letter_message, type_header
from .payload_schemas import Mode, payload_schemas
from .servers import protocol_of, servers_of
from .system import EventType, Receive, Send, Service, has_types, name_of

VERSION = "3.0.0"
DEAD = "DeadLetter"
"""The key of the message that stands for all dead letters."""

Document = dict[str, Any]


def asyncapi(services: Sequence[Service]) -> Document:
    """Return the AsyncAPI 3.0 document of `services`, in an order that does not change."""
    return _Writer(services).document()


class _Writer:
    """Writes one document. Channels are collected first, since several services share them."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._protocol = protocol_of(next((each.url for each in services if each.url), None))
        self._servers: dict[str, Any] = {}
        self._channels: dict[str, Any] = {}
        self._operations: dict[str, Any] = {}
        self._topics: dict[str, _Channel] = {}
        self._collect()
        modes: list[tuple[Hashable, Mode, Any]] = [
            ((topic, key), channel.modes[key], event.payload)
            for topic, channel in sorted(self._topics.items())
            for key, event in channel.events.items()
        ]
        self._payloads, self._schemas = payload_schemas(modes)

    def document(self) -> Document:
        for service in self._services:
            self._add_servers(service)
        for name, channel in sorted(self._topics.items()):
            self._channels[name] = self._channel(name, channel)
        for service in self._services:
            for receive in service.receives:
                self._receive(service, receive)
            for send in service.sends:
                self._send(service, send)
        document: Document = {
            "asyncapi": VERSION,
            "info": _info(self._services),
            "defaultContentType": "application/json",
            "servers": self._servers,
            "channels": self._channels,
            "operations": dict(sorted(self._operations.items())),
            "components": self._components(),
        }
        return {key: value for key, value in document.items() if value != {}}

    def _collect(self) -> None:
        for service in self._services:
            for receive in service.receives:
                self._channel_of(service, receive.topic).add(receive.types, "validation")
                if receive.dead_letters is not None:
                    letters = self._channel_of(service, Topic(receive.dead_letters))
                    group = f"group {receive.group}" if receive.group else "broadcast"
                    letters.letters_of.append(f"{receive.topic.name} ({group})")
            for send in service.sends:
                self._channel_of(service, send.topic).add(send.types, "serialization")
        for channel in self._topics.values():
            if channel.letters_of:
                channel.drop_undeclared()

    def _channel_of(self, service: Service, topic: Topic[Any]) -> _Channel:
        channel = self._topics.setdefault(topic.name, _Channel(topic, service))
        if topic.partitions is not None:
            channel.topic = topic
        return channel

    def _add_servers(self, service: Service) -> None:
        for server in servers_of(service.url) if service.url else ():
            if server in self._servers.values():
                continue
            key = name = server["protocol"]
            number = 1
            while key in self._servers:
                number += 1
                key = f"{name}-{number}"
            self._servers[key] = server

    def _channel(self, name: str, channel: _Channel) -> dict[str, Any]:
        native = channel.service.names.get(name, name)
        messages = {key: self._message(name, key, channel) for key in channel.events}
        if channel.letters_of:
            messages[DEAD] = {"$ref": f"#/components/messages/{DEAD}"}
        found: dict[str, Any] = {"address": native, "messages": messages}
        if channel.letters_of:
            found["description"] = f"Dead letters of {', '.join(channel.letters_of)}."
        bindings = _channel_bindings(channel, native)
        return found | ({"bindings": bindings} if bindings else {})

    def _message(self, topic: str, key: str, channel: _Channel) -> dict[str, Any]:
        event = channel.events[key]
        message: dict[str, Any] = {
            "name": event.types[0],
            "contentType": _content_type(event.payload),
            "payload": self._payloads[topic, key],
            "traits": [{"$ref": "#/components/messageTraits/cloudevents"}],
        }
        if has_types(event):
            message["headers"] = type_header(self._protocol, event.types)
        return message

    def _receive(self, service: Service, receive: Receive) -> None:
        topic, options = receive.topic.name, receive.handlers[0].options
        about: dict[str, Any] = {
            "service": service.name,
            "group": receive.group,
            "handlers": [name_of(each) for each in receive.handlers],
        }
        if options.ordered:
            about["ordered"] = True
        if options.batch is not None:
            about["batch"] = options.batch.size
        if any(each.reply for each in receive.handlers):
            about["answersRequests"] = True
        if receive.takes_all:
            about["unknownTypes"] = "accepted"
        if receive.dead_letters is not None:
            about["deadLetters"] = receive.dead_letters
        operation: dict[str, Any] = {
            "action": "receive",
            "channel": self._channel_ref(topic),
            "messages": self._message_refs(topic, receive.types),
            **_described(receive),
            "tags": [{"name": service.name}],
            "x-anymq": about,
        }
        bindings = _operation_bindings(service, receive)
        self._add_operation(
            f"{service.name}.receive.{topic}.{receive.group or 'broadcast'}",
            operation | ({"bindings": bindings} if bindings else {}),
        )
        if receive.dead_letters is not None:
            self._operations.setdefault(
                _id(f"{service.name}.send.{receive.dead_letters}"),
                {
                    "action": "send",
                    "channel": self._channel_ref(receive.dead_letters),
                    "messages": [self._message_ref(receive.dead_letters, DEAD)],
                    "tags": [{"name": service.name}],
                    "x-anymq": {"service": service.name, "deadLettersOf": topic},
                },
            )

    def _send(self, service: Service, send: Send) -> None:
        about: dict[str, Any] = {"service": service.name}
        if send.handler is not None:
            about["handler"] = name_of(send.handler)
        self._add_operation(
            f"{service.name}.send.{send.topic.name}",
            {
                "action": "send",
                "channel": self._channel_ref(send.topic.name),
                "messages": self._message_refs(send.topic.name, send.types),
                "tags": [{"name": service.name}],
                "x-anymq": about,
            },
        )

    def _add_operation(self, name: str, operation: dict[str, Any]) -> None:
        key, number = _id(name), 1
        while key in self._operations:
            number += 1
            key = _id(f"{name}-{number}")
        self._operations[key] = operation

    def _channel_ref(self, topic: str) -> dict[str, str]:
        return {"$ref": f"#/channels/{topic}"}

    def _message_ref(self, topic: str, key: str) -> dict[str, str]:
        return {"$ref": f"#/channels/{topic}/messages/{key}"}

    def _message_refs(self, topic: str, types: Iterable[EventType]) -> list[dict[str, str]]:
        channel = self._topics[topic]
        keys = dict.fromkeys(channel.key_of(event) for event in types)
        return [self._message_ref(topic, key if key in channel.events else DEAD) for key in keys]

    def _components(self) -> dict[str, Any]:
        components: dict[str, Any] = {}
        if self._schemas:
            components["schemas"] = self._schemas
        if any(channel.letters_of for channel in self._topics.values()):
            components["messages"] = {DEAD: dead_letter_message()}
        if self._topics:
            components["messageTraits"] = {"cloudevents": cloudevents_trait(self._protocol)}
        return components


class _Channel:
    """A topic with all that its services say about it."""

    def __init__(self, topic: Topic[Any], service: Service) -> None:
        self.topic = topic
        self.service = service
        self.events: dict[str, EventType] = {}
        self.modes: dict[str, Mode] = {}
        self.letters_of: list[str] = []

    def add(self, types: Iterable[EventType], mode: Mode) -> None:
        """Add message types. What a consumer accepts is said rather than what is written."""
        for event in types:
            key = self.key_of(event)
            self.events.setdefault(key, event)
            if mode == "validation" or key not in self.modes:
                self.modes[key] = mode

    def drop_undeclared(self) -> None:
        """Forget types without a declared payload: on this topic they are dead letters."""
        self.events = {k: event for k, event in self.events.items() if event.payload is not Any}

    def key_of(self, event: EventType) -> str:
        """Return the key of an event: its name, numbered if another class has the same."""
        key, number = _id(event.name), 1
        while key in self.events and self.events[key] != event:
            number += 1
            key = f"{_id(event.name)}-{number}"
        return key


def _id(name: str) -> str:
    """Return `name` as a key that a reference can hold as it is."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _info(services: Sequence[Service]) -> dict[str, Any]:
    versions = dict.fromkeys(each.version or "0.0.0" for each in services)
    return {
        "title": ", ".join(dict.fromkeys(each.name for each in services)),
        "version": ", ".join(versions),
        "x-generator": f"anymq {__version__}",
    }


def _content_type(kind: Any) -> str:
    if kind is str:
        return "text/plain; charset=utf-8"
    return "application/octet-stream" if kind in (bytes, bytearray) else "application/json"


def _described(receive: Receive) -> dict[str, str]:
    """Return the title and description of an operation, by the names and docstrings of handlers."""
    texts = [inspect.getdoc(each.function) for each in receive.handlers]
    found = {"title": ", ".join(name_of(each) for each in receive.handlers)}
    described = "\n\n".join(text for text in texts if text)
    return found | ({"description": described} if described else {})


def _channel_bindings(channel: _Channel, native: str) -> dict[str, Any]:
    url, topic = channel.service.url, channel.topic
    name = protocol_of(url).name
    if name.startswith("kafka") and topic.partitions is not None:
        return {"kafka": {"partitions": topic.partitions, "bindingVersion": "0.5.0"}}
    if url is not None and name.startswith("amqp"):
        exchange: dict[str, Any] = {"name": native, "type": "topic"}
        exchange |= {"durable": True, "autoDelete": False, "vhost": url.path.lstrip("/") or "/"}
        return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}}
    return {}


def _operation_bindings(service: Service, receive: Receive) -> dict[str, Any]:
    name, group = protocol_of(service.url).name, receive.group
    if name.startswith("kafka") and group is not None:
        mapped = f"{receive.topic.name}.{group}"
        ids = {"type": "string", "enum": [service.names.get(mapped, mapped)]}
        return {"kafka": {"groupId": ids, "bindingVersion": "0.5.0"}}
    if name.startswith("amqp"):
        return {"amqp": {"ack": group is not None, "bindingVersion": "0.3.0"}}
    return {}
