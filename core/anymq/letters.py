"""Dead letters: the message as it was, with headers that say where it failed and why."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .cloudevents import encode
from .driver import Record
from .message import Message, utc
from .topic import dead_letter_topic

if TYPE_CHECKING:
    from .delivery import Delivery
    from .driver import Binding

TOPIC = "anymq-dlq-topic"
GROUP = "anymq-dlq-group"
REASON = "anymq-dlq-reason"
ATTEMPTS = "anymq-dlq-attempts"
ERROR_TYPE = "anymq-dlq-error-type"
ERROR_MESSAGE = "anymq-dlq-error-message"
FIRST_SEEN = "anymq-dlq-first-seen"
FAILED_AT = "anymq-dlq-failed-at"
HISTORY = "anymq-dlq-history"
"""The failures before the latest redrive, as JSON."""

_LONGEST = 1000
_LONGEST_HISTORY = 5
_REMEMBERED = ("reason", "attempts", "error_type", "failed_at")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def letter_for(
    delivery: Delivery,
    binding: Binding,
    *,
    reason: str,
    error: BaseException | None,
    topic: str | None,
    now: float,
) -> Record:
    """Return the record for the dead letters: same id, body, key and headers as the original.

    Its broker-level id is the same when the same delivery is rejected again (a repeated flush),
    and another for every other delivery, so that deduplication cannot swallow a letter.
    """
    message = delivery.message
    group = delivery.group or "broadcast"
    first_seen = message.time or utc(now)
    headers = dict(message.headers)
    headers |= {
        TOPIC: message.topic,
        GROUP: group,
        REASON: text(reason),
        ATTEMPTS: str(delivery.attempt),
        FIRST_SEEN: first_seen.isoformat(),
        FAILED_AT: utc(now).isoformat(),
    }
    if error is not None:
        headers[ERROR_TYPE] = f"{type(error).__module__}.{type(error).__qualname__}"
        headers[ERROR_MESSAGE] = text(str(error))
    letter: Message = replace(
        message, topic=topic or dead_letter_topic(message.topic, delivery.group), headers=headers
    )
    position = delivery.received.position
    return encode(letter, binding, unique=f"{message.id}/{group}/dlq/{position}/{delivery.attempt}")


def text(value: str) -> str:
    """Return `value` fit for a header: one line, valid Unicode, of bounded length."""
    clean = _CONTROL.sub(" ", value).encode(errors="backslashreplace").decode()
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"


def history_of(headers: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the earlier failures of a message that has been redriven, oldest first."""
    try:
        history = json.loads(headers.get(HISTORY, "[]"))
    except ValueError:
        return []
    return history if isinstance(history, list) else []


def without_failure(
    headers: Mapping[str, str], failure: Mapping[str, str | None]
) -> dict[str, str]:
    """Return `headers` as they were before the message failed, with `failure` in its history."""
    entry = {name: text(str(failure[name])) for name in _REMEMBERED if failure.get(name)}
    history = [*history_of(headers), entry][-_LONGEST_HISTORY:]
    clean = {name: value for name, value in headers.items() if not name.startswith("anymq-dlq-")}
    clean[HISTORY] = json.dumps(history)
    return clean
