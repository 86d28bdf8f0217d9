"""`Letter`: a dead letter, read from its topic or from an export."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from ..errors import ConfigurationError
from ..message import Message
from ..names import check_group, check_topic, is_control_header, is_group, is_topic
from ..topic import BROADCAST, dead_letter_topic
from ..wire.dead_letter_headers import (
    ATTEMPTS,
    ERROR_MESSAGE,
    ERROR_TYPE,
    FAILED_AT,
    FIRST_SEEN,
    GROUP,
    REASON,
    REDUCED,
    TOPIC,
    history_of,
    number_of,
    traceback_in,
)
from .message_values import attributes_of, body_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter: the original message, and how it failed."""

    position: str
    """The position of the letter in the dead-letter topic."""
    message: Message
    topic: str
    group: str | None
    reason: str | None = None
    attempts: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    """The end of the error's traceback, where the letter holds one."""
    first_seen: datetime | None = None
    failed_at: datetime | None = None
    history: tuple[Mapping[str, str], ...] = ()
    """Its earlier failures, oldest first: it was redriven after each of them."""
    reduced: tuple[str, ...] = ()
    """The parts that are missing because the broker refused them: `body` or `headers`.

    Their sizes and digests are in the headers `anymq-dlq-…`.
    """

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; a body that is not text is in `body_base64`."""
        return {
            "position": self.position,
            "stored_in": self.message.topic,
            "topic": self.topic,
            "group": self.group,
            **attributes_of(self.message),
            **body_of(self.message),
            "reason": self.reason,
            "attempts": self.attempts,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "traceback": self.traceback,
            "first_seen": _text(self.first_seen),
            "failed_at": _text(self.failed_at),
            "history": [dict(item) for item in self.history],
            "reduced": list(self.reduced),
        }

    @classmethod
    def from_dict(cls, data: object) -> Letter:
        """Return the letter of which `data` is the `as_dict`, for `DeadLetters.restore`.

        The failure is read from the headers, so that it is the one that consumers see. Raises
        `ConfigurationError`, which names the field, for anything that is no letter.
        """
        if not isinstance(data, Mapping):
            raise ConfigurationError("a dead letter is a JSON object")
        topic, group = check_topic(_string(data, "topic")), _optional(data, "group")
        if group is not None:
            check_group(group)
        message = Message(
            id=_string(data, "id"),
            topic=check_topic(_optional(data, "stored_in") or dead_letter_topic(topic, group)),
            body=_body(data),
            time=_time(data, "time"),
            headers=MappingProxyType(_headers(data)),
            key=_optional(data, "key"),
            type=_optional(data, "type"),
            source=_optional(data, "source"),
            content_type=_optional(data, "content_type"),
            correlation_id=_optional(data, "correlation_id"),
            causation_id=_optional(data, "causation_id"),
        )
        if not message.id:
            raise ConfigurationError("id is empty")
        position = _optional(data, "position") or ""
        letter = letter_of(message, position=position, topic=topic, group=group)
        if (letter.topic, letter.group) != (topic, group):
            raise ConfigurationError("topic and group are not those in the headers")
        if message.topic == topic:
            raise ConfigurationError("stored_in is the topic itself, not one for dead letters")
        return letter


def letter_of(message: Message, *, position: str, topic: str, group: str | None) -> Letter:
    """Return the letter in `message`. Without other headers it is of `group` on `topic`."""
    headers = message.headers
    found = headers.get(GROUP, group)
    if found == BROADCAST and group != BROADCAST:
        found = None
    return Letter(
        position=position,
        message=message,
        topic=headers.get(TOPIC, topic),
        group=found,
        reason=headers.get(REASON),
        attempts=number_of(headers.get(ATTEMPTS)),
        error_type=headers.get(ERROR_TYPE),
        error_message=headers.get(ERROR_MESSAGE),
        traceback=traceback_in(headers),
        first_seen=_moment(headers.get(FIRST_SEEN)),
        failed_at=_moment(headers.get(FAILED_AT)),
        history=tuple(history_of(headers)),
        reduced=tuple(headers.get(REDUCED, "").split()),
    )


def origin_of(message: Message) -> tuple[str, str | None] | None:
    """Return topic and group in the headers of a letter; None if they are damaged or missing."""
    topic, group = message.headers.get(TOPIC, ""), message.headers.get(GROUP, "")
    if not is_topic(topic) or not is_group(group):
        return None
    return topic, None if group == BROADCAST else group


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _string(data: Mapping[str, Any], name: str) -> str:
    value = _optional(data, name)
    if value is None:
        raise ConfigurationError(f"{name} is missing")
    return value


def _optional(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return None if value is None else _unicode(name, value)


def _unicode(name: str, value: object) -> str:
    """Return `value`, which must be text that UTF-8 can encode: JSON may have lone surrogates."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{name} is not valid Unicode text") from error
    return value


def _body(data: Mapping[str, Any]) -> bytes:
    if ("body" in data) == ("body_base64" in data):
        raise ConfigurationError("there must be either body or body_base64")
    if "body" in data:
        return _string(data, "body").encode()
    try:
        return base64.b64decode(_string(data, "body_base64"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"body_base64 is not base64: {error}") from error


def _time(data: Mapping[str, Any], name: str) -> datetime | None:
    text = _optional(data, name)
    found = _moment(text)
    if text is not None and found is None:
        raise ConfigurationError(f"{name} is no time in ISO 8601: {text[:80]!r}")
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def _headers(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers; those that would control a broker or anymq are refused."""
    found = data.get("headers") or {}
    if not isinstance(found, Mapping):
        raise ConfigurationError("headers is no JSON object")
    for name, value in found.items():
        if not name or is_control_header(_unicode("the name of a header", name)):
            raise ConfigurationError(f"the header name {name[:80]!r} is reserved")
        _unicode(f"the header {name[:80]!r}", value)
    return dict(found)
