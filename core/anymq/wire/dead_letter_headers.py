"""The headers of dead letters: the original message, and where and why it failed."""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from ..driver.clock import utc
from ..driver.records import Record
from ..driver.specs import Binding
from ..errors import AnymqError, MessageTooLarge, text_of
from ..identity import copy_id
from ..message import Message
from ..names import MAX_HEADERS, check_headers, check_key
from ..topic import dead_letter_topic
from .cloudevents import encode

TOPIC = "anymq-dlq-topic"
GROUP = "anymq-dlq-group"
REASON = "anymq-dlq-reason"
ATTEMPTS = "anymq-dlq-attempts"
ERROR_TYPE = "anymq-dlq-error-type"
ERROR_MESSAGE = "anymq-dlq-error-message"
TRACEBACK = "anymq-dlq-traceback"
"""The end of the error's traceback, as a JSON string: a header is one line."""
FIRST_SEEN = "anymq-dlq-first-seen"
FAILED_AT = "anymq-dlq-failed-at"
HISTORY = "anymq-dlq-history"
"""The failures before the latest redrive, as JSON."""
REDUCED = "anymq-dlq-reduced"
"""The parts of the message that the broker refused: `body`, `headers`, or both."""
REFUSED = "anymq-dlq-refused"
"""The error with which the broker refused the whole letter."""
POSITION = "anymq-dlq-position"
"""The position of the message when it failed, in the broker's notation."""
BODY_SIZE, BODY_DIGEST = "anymq-dlq-body-size", "anymq-dlq-body-sha256"
HEADERS_SIZE, HEADERS_DIGEST = "anymq-dlq-headers-size", "anymq-dlq-headers-sha256"

_LONGEST = 1000
LONGEST_TRACEBACK = 4096
"""Bytes of a traceback that a letter keeps: its end, with the newest frames."""
MOST_FRAMES = 50
_LONGEST_HISTORY = 5
_REMEMBERED = ("reason", "attempts", "error_type", "failed_at")
FAILURE = "anymq-dlq-"
"""The prefix of the headers that describe the failure."""
_OURS = {TOPIC, GROUP, REASON, ATTEMPTS, ERROR_TYPE, ERROR_MESSAGE, FIRST_SEEN, FAILED_AT}
_ALL = frozenset({"body", "headers"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def letter_for(
    message: Message,
    binding: Binding,
    *,
    group: str | None,
    attempt: int,
    position: str,
    reason: str,
    error: BaseException | None,
    with_traceback: bool,
    topic: str | None,
    now: float,
) -> Record:
    """Return the dead letter of a message: same id, body, key and headers as the original.

    Its deduplication id is the same when one delivery is rejected again (a repeated flush), and
    different for every other delivery, so that deduplication cannot swallow a letter.
    """
    first_seen = message.time or utc(now)
    headers = dict(message.headers)
    headers |= {
        TOPIC: message.topic,
        GROUP: group or "broadcast",
        REASON: text(reason),
        ATTEMPTS: str(attempt),
        FIRST_SEEN: first_seen.isoformat(),
        FAILED_AT: utc(now).isoformat(),
    }
    if error is not None:
        headers[ERROR_TYPE] = f"{type(error).__module__}.{type(error).__qualname__}"
        headers[ERROR_MESSAGE] = text(text_of(error))
        if with_traceback and error.__traceback__ is not None:
            headers[TRACEBACK] = json.dumps(_traceback_of(error))
    letter: Message = replace(
        message,
        topic=topic or dead_letter_topic(message.topic, group),
        type=message.type or message.topic,
        headers=headers,
    )
    where = message.topic, group, position
    unique = copy_id("letter", message.source, message.id, *where, str(attempt))
    return encode(letter, binding, unique=unique)


def _traceback_of(error: BaseException) -> str:
    """Return the end of `error`'s traceback, from the beginning of a line on."""
    lines = traceback.format_exception(error, limit=-MOST_FRAMES)
    raw = "".join(lines).encode(errors="backslashreplace")
    if len(raw) > LONGEST_TRACEBACK:
        raw = raw[-LONGEST_TRACEBACK:]
        raw = raw.partition(b"\n")[2] or raw
    return raw.decode(errors="ignore")


def traceback_in(headers: Mapping[str, str]) -> str | None:
    """Return the traceback that a letter's headers hold; None if there is none."""
    try:
        found = json.loads(headers.get(TRACEBACK, "null"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def without_traceback(letter: Record) -> Record:
    """Return `letter` without its traceback."""
    smaller = letter.with_headers({})
    smaller.own.pop(TRACEBACK, None)
    return smaller


def text(value: str) -> str:
    """Return `value` fit for a header: one line, valid Unicode, of bounded length."""
    clean = _CONTROL.sub(" ", value).encode(errors="backslashreplace").decode()
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"


def reductions(letter: Record, error: BaseException) -> Sequence[frozenset[str]]:
    """Return the parts to leave out of a letter refused with `error`, in the order to try."""
    rest = sum(len(name) + len(value) for name, value in letter.headers.items())
    large = isinstance(error, MessageTooLarge) and len(letter.body) > rest
    first = frozenset({"body" if large else "headers"})
    return (first, _ALL) if letter.body else (_ALL,)


def reduced(
    letter: Record,
    message: Message,
    binding: Binding,
    *,
    position: str,
    without: frozenset[str],
    error: BaseException,
) -> Record:
    """Return `letter` without the parts that the broker refuses, but with their size and digest.

    Without `headers`, the headers that anymq lets an application publish stay, up to the same
    limits. The message's id, key and type are shortened if they are too long.
    """
    failure = {
        name: value
        for name, value in letter.headers.items()
        if name in _OURS or (name.startswith(FAILURE) and message.headers.get(name) != value)
    }
    failure |= {
        REDUCED: " ".join(sorted(without)),
        REFUSED: text(str(error)),
        POSITION: text(position),
    }
    if "body" in without:
        failure |= {BODY_SIZE: str(len(message.body)), BODY_DIGEST: _digest(message.body)}
        message = replace(message, body=b"")
    if "headers" in without:
        written = json.dumps(dict(message.headers)).encode()
        failure |= {HEADERS_SIZE: str(len(written)), HEADERS_DIGEST: _digest(written)}
        message = _fit(message)
    headers = {**message.headers, **{name: text(value) for name, value in failure.items()}}
    message = replace(message, topic=letter.topic, headers=headers)
    unique = _digest(f"{letter.unique}/{failure[REDUCED]}".encode())
    return encode(message, binding, unique=unique)


def _fit(message: Message) -> Message:
    """Return `message` with the headers that an application could have published."""
    headers: dict[str, str] = {}
    for name, value in islice(message.headers.items(), MAX_HEADERS * 4):
        try:
            headers = check_headers({**headers, name: value})
        except (AnymqError, ValueError):
            continue
    return replace(
        message,
        headers=headers,
        id=_named(message.id) or "",
        key=_named(message.key),
        type=_named(message.type),
        source=_named(message.source),
        content_type=_named(message.content_type),
        correlation_id=_named(message.correlation_id),
        causation_id=_named(message.causation_id),
        original=None,
    )


def _named(value: str | None) -> str | None:
    """Return `value` if it can be published, otherwise its beginning and its digest."""
    if value is None:
        return None
    try:
        return check_key(value)
    except AnymqError:
        raw = value.encode(errors="surrogatepass")
        return f"{text(value)[:200]}#{_digest(raw)[:32]}"


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def history_of(headers: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the earlier failures of a message that has been redriven, oldest first.

    Any publisher may have written the header, so items that are no such failure are left out.
    """
    try:
        history = json.loads(headers.get(HISTORY, "[]"))
    except (ValueError, RecursionError):
        return []
    if not isinstance(history, list):
        return []
    found = [
        {text(name): text(value) for name, value in item.items() if isinstance(value, str)}
        for item in history[-_LONGEST_HISTORY:]
        if isinstance(item, dict)
    ]
    return [item for item in found if item]


def number_of(header: str | None) -> int | None:
    """Return what a header counts; None if it is no such number."""
    if header is None or not (header.isascii() and header.isdecimal() and len(header) < 19):
        return None
    return int(header)


def without_failure(
    headers: Mapping[str, str], failure: Mapping[str, str | None]
) -> dict[str, str]:
    """Return `headers` as they were before the message failed, with `failure` in its history."""
    entry = {name: text(str(failure[name])) for name in _REMEMBERED if failure.get(name)}
    history = [*history_of(headers), entry][-_LONGEST_HISTORY:]
    clean = {name: value for name, value in headers.items() if not name.startswith(FAILURE)}
    clean[HISTORY] = json.dumps(history)
    return clean
