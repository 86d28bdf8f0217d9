"""`PublishOptions`: the options of a publish, and the attributes that it states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypedDict

from ..message import Message
from ..names import check_attribute

NOT_STATED = (None, None, None)
"""No correlation id, causation id or content type of the publisher's own."""


class PublishOptions(TypedDict, total=False):
    """The keyword arguments of `Broker.publish`."""

    key: str | None
    headers: Mapping[str, str] | None
    id: str | None
    type: str | None
    delay: float | timedelta | None
    deliver_at: datetime | None
    timeout: float | None
    correlation_id: str | None
    causation_id: str | None
    content_type: str | None


def stating(
    message: Message,
    correlation_id: str | None,
    causation_id: str | None,
    content_type: str | None,
) -> Message:
    """Return `message` with the attributes that the publisher has stated."""
    stated = {
        "correlation_id": correlation_id,
        "causation_id": causation_id,
        "content_type": content_type,
    }
    given = {
        name: check_attribute(name.replace("_", " "), value)
        for name, value in stated.items()
        if value is not None
    }
    return replace(message, **given) if given else message  # type: ignore[arg-type]
