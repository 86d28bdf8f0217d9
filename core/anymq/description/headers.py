"""The headers of messages, as schemas: CloudEvents attributes, and those of dead letters."""

from __future__ import annotations

from typing import Any

from .servers import Protocol

_TEXT = {"type": "string"}
_DEAD_LETTER_HEADERS = {
    "anymq-dlq-topic": "The topic of the message.",
    "anymq-dlq-group": "The group whose handler failed.",
    "anymq-dlq-reason": "Why the message is here.",
    "anymq-dlq-attempts": "The number of attempts.",
    "anymq-dlq-error-type": "The class of the last error.",
    "anymq-dlq-error-message": "The text of the last error.",
    "anymq-dlq-first-seen": "The time of the first delivery.",
    "anymq-dlq-failed-at": "The time of the last failure.",
}


def cloudevents_trait(protocol: Protocol) -> dict[str, Any]:
    """Return the message trait with the headers that every message has on this protocol."""
    prefix = protocol.prefix
    attributes: dict[str, Any] = {
        "specversion": {"type": "string", "enum": ["1.0"]},
        "id": _TEXT,
        "source": _TEXT,
        "type": _TEXT,
        "time": {"type": "string", "format": "date-time"},
        "correlationid": {"type": "string", "description": "Shared by all messages of one flow."},
        "causationid": {"type": "string", "description": "The id of the message that caused it."},
    }
    if not protocol.native_key:
        attributes["partitionkey"] = {"type": "string", "description": "The key of the message."}
    trait: dict[str, Any] = {
        "headers": {
            "type": "object",
            "required": [prefix + name for name in ("specversion", "id", "source", "type")],
            "properties": {prefix + name: schema for name, schema in attributes.items()},
        },
        "correlationId": {"location": f"$message.header#/{prefix}correlationid"},
    }
    if protocol.name.startswith("kafka"):
        trait["bindings"] = {"kafka": {"key": _TEXT, "bindingVersion": "0.5.0"}}
    return trait


def type_header(protocol: Protocol, types: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of the header that tells the types of a message."""
    name = f"{protocol.prefix}type"
    return {"type": "object", "properties": {name: {"type": "string", "enum": list(types)}}}


def dead_letter_message() -> dict[str, Any]:
    """Return the message of dead letters: body and headers of the original, and the failure."""
    properties = {
        name: {"type": "string", "description": text} for name, text in _DEAD_LETTER_HEADERS.items()
    }
    return {
        "name": "DeadLetter",
        "summary": "A rejected message: its body and headers as they were, and why it failed.",
        "headers": {"type": "object", "properties": properties},
        "traits": [{"$ref": "#/components/messageTraits/cloudevents"}],
    }
