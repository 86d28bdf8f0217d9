"""A message as JSON values, the same in exports of dead letters and in the output of commands."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from ..message import Message


def attributes_of(message: Message) -> dict[str, Any]:
    """Return everything of `message` but its topic and its body."""
    return {
        "id": message.id,
        "key": message.key,
        "type": message.type,
        "source": message.source,
        "time": None if message.time is None else message.time.isoformat(),
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "causation_id": message.causation_id,
        "headers": dict(message.headers),
    }


def body_of(message: Message) -> dict[str, str]:
    """Return the body as `body`, or as `body_base64` if it is not UTF-8."""
    try:
        return {"body": message.body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(message.body).decode()}
