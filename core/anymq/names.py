"""Checks of the names, keys and headers that an application passes to anymq."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import ConfigurationError, MessageTooLarge

MAX_NAME = 200
MAX_GROUP = 64
MAX_HEADERS = 64
MAX_HEADER_NAME = 64
MAX_HEADER_VALUE = 4096
MAX_HEADER_BYTES = 16 * 1024
MAX_KEY = 1024

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_TOPIC = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*")
_GROUP = re.compile(_SEGMENT)
_HEADER = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_RESERVED: tuple[str, ...] = (
    "anymq-",
    "ce-",
    "ce_",
    "cloudevents:",
    "cloudevents_",
    "nats-",
    "x-death",
)
_RESERVED += ("x-delivery", "x-acquired", "x-first-death", "x-last-death", "x-stream", "x-opt-")
# Applications may read, but not set, extension attributes and the headers of dead letters.
_READABLE = ("ce-", "ce_", "anymq-dlq-")
_RESERVED_NAMES = frozenset({"data", "content-type"})


def check_topic(name: str) -> str:
    """Return `name` if it is a topic name: `seg(.seg)*`, each `[A-Za-z0-9][A-Za-z0-9_-]*`.

    Raises `ConfigurationError`, also for the wildcards `*`, `>` and `#`.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"a topic is a name or a Topic, not {name!r}")
    if not is_topic(name):
        raise ConfigurationError(
            f"{name[:80]!r} is not a topic name: dot-separated segments of A-Z a-z 0-9 _ -, "
            f"each beginning with a letter or digit, at most {MAX_NAME} bytes"
        )
    return name


def is_topic(name: str) -> bool:
    """Whether `name` is a topic name."""
    return len(name) <= MAX_NAME and _TOPIC.fullmatch(name) is not None


def check_group(name: str) -> str:
    """Return `name` if it is a group name: one segment, no dots. Raises `ConfigurationError`."""
    if not is_group(name):
        raise ConfigurationError(
            f"{name[:80]!r} is not a group name: A-Z a-z 0-9 _ -, beginning with a letter or "
            f"digit, no dots, at most {MAX_GROUP} bytes"
        )
    return name


def is_group(name: str) -> bool:
    """Whether `name` is a group name."""
    return len(name) <= MAX_GROUP and _GROUP.fullmatch(name) is not None


def check_key(key: str) -> str:
    """Return `key` if it is a valid message key. Raises `ConfigurationError`."""
    return _check_value("the key", key, MAX_KEY)


def check_id(id: str) -> str:
    """Return `id` if it is a valid message id. Raises `ConfigurationError`."""
    if not _check_value("the id", id, MAX_KEY):
        raise ConfigurationError("the id is empty; leave it out for a new one")
    return id


def check_attribute(name: str, value: str) -> str:
    """Return `value` if it is valid for the attribute `name`. Raises `ConfigurationError`."""
    if not _check_value(f"the {name}", value, MAX_KEY):
        raise ConfigurationError(f"the {name} is empty; leave it out")
    return value


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the application's `headers`.

    Names must be HTTP tokens, and values text without control characters. Names that control a
    broker or anymq itself (`Nats-…`, `x-death`, `ce-…`, `anymq-…`) are reserved. Raises
    `ConfigurationError` for an invalid header, `MessageTooLarge` for too many or too long ones.
    """
    if not headers:
        return {}
    if len(headers) > MAX_HEADERS:
        raise MessageTooLarge(f"{len(headers)} headers; at most {MAX_HEADERS} are allowed")
    total = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or len(name) > MAX_HEADER_NAME:
            raise ConfigurationError(
                f"{str(name)[:80]!r} is not a header name: an HTTP token of at most "
                f"{MAX_HEADER_NAME} bytes"
            )
        lower = name.lower()
        if lower.startswith(_RESERVED) or lower in _RESERVED_NAMES:
            raise ConfigurationError(f"the header name {name!r} is reserved")
        total += len(name) + len(_check_value(f"header {name!r}", value, MAX_HEADER_VALUE).encode())
    if total > MAX_HEADER_BYTES:
        raise MessageTooLarge(f"headers of {total} bytes; at most {MAX_HEADER_BYTES} are allowed")
    return dict(headers)


def is_control_header(name: str) -> bool:
    """Whether `name` belongs to a broker or to anymq rather than to the application."""
    lower = name.lower()
    return lower in _RESERVED_NAMES or (
        lower.startswith(_RESERVED) and not lower.startswith(_READABLE)
    )


def _check_value(label: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{label} must be str, not {type(value).__name__}")
    if _CONTROL.search(value):
        raise ConfigurationError(f"{label} contains a control character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"{label} is not valid Unicode text") from None
    if size > limit:
        raise MessageTooLarge(f"{label} is {size} bytes; at most {limit} are allowed")
    return value
