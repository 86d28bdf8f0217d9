"""`Shown`: a message as a command writes it: pretty, JSON, its raw body, or by a template."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from string import Formatter
from typing import Any

from ..consuming.delivery import Delivery
from ..message import Message
from ..operating.message_values import attributes_of, body_of
from ..operating.topic_access import Stored
from .failures import UsageError
from .output import envelope

Format = Callable[["Shown"], bytes]
"""The bytes of a message for standard output, with the end of its line."""

WIDTH = 100
"""A JSON body of more characters is shown on several lines."""
BINARY = 32
"""The bytes of a body that is no text which are shown."""

_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\0": "\0", r"\\": "\\"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A message to write, from a topic or delivered to a group."""

    message: Message
    position: str
    partition: int = 0
    group: str | None = None
    attempt: int | None = None

    @classmethod
    def of_stored(cls, stored: Stored) -> Shown:
        """Return a message as it is stored."""
        return cls(message=stored.message, position=stored.position, partition=stored.partition)

    @classmethod
    def of_delivery(cls, delivery: Delivery) -> Shown:
        """Return a delivered message."""
        return cls(
            message=delivery.message,
            position=delivery.position,
            partition=delivery.partition,
            group=delivery.group,
            attempt=None if delivery.group is None else delivery.attempt,
        )

    @property
    def time(self) -> str | None:
        """The time of the message in UTC, to the millisecond."""
        time = self.message.time
        if time is None:
            return None
        text = time.astimezone(UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; a body that is no UTF-8 is `body_base64`."""
        message = self.message
        data: dict[str, Any] = {
            "topic": message.topic,
            "position": self.position,
            "partition": self.partition,
            **attributes_of(message),
        }
        if self.group is not None:
            data |= {"group": self.group, "attempt": self.attempt}
        return data | body_of(message)


def format_of(text: str) -> Format:
    """Return the format `pretty`, `json`, `raw`, or a template such as `{key} {data}`."""
    known = {"pretty": pretty, "json": as_json, "raw": raw}
    if text in known:
        return known[text]
    if "{" not in text:
        raise UsageError(
            f"there is no format {text!r}; write pretty, json, raw, or fields: '{{key}} {{data}}'"
        )
    return template(text)


def as_json(shown: Shown) -> bytes:
    """Return an envelope of the kind `message`, which `anymq pub` reads."""
    # Half a surrogate pair, which other programs may send, becomes its escape of JSON.
    return f"{envelope('message', shown.as_dict())}\n".encode("utf-8", "backslashreplace")


def raw(shown: Shown) -> bytes:
    """Return the body unchanged, and a line end."""
    return shown.message.body + b"\n"


def pretty(shown: Shown) -> bytes:
    """Return a line about the message, its headers, and its body."""
    message = shown.message
    facts = [f"#{shown.position}", shown.time]
    type = None if message.type == message.topic else message.type
    named = {"key": message.key, "type": type, "id": message.id}
    named["attempt"] = str(shown.attempt) if (shown.attempt or 1) > 1 else None
    facts += [f"{name}={value}" for name, value in named.items() if value is not None]
    lines = ["  ".join(fact for fact in facts if fact)]
    lines += [f"  {name}: {value}" for name, value in message.headers.items()]
    about = "\n".join(_on_one_line(line) for line in lines)
    if _has_colours():
        about = f"{_DIM}{about}{_PLAIN}"
    return f"{about}\n{_body(message)}\n".encode()


def template(text: str) -> Format:
    r"""Return the format of a template with fields, `\n`, `\t` and `\0`.

    Raises `UsageError` for an unknown field. On a terminal control characters of the message are
    escaped.
    """
    try:
        parts = [
            (_unescaped(literal), None if name is None else _field(name))
            for literal, name, spec, conversion in Formatter().parse(text)
            if not _refused(spec, conversion)
        ]
    except ValueError as error:
        raise UsageError(f"the template {text!r} is malformed: {error}") from error
    safe = sys.stdout.isatty()

    def fill(shown: Shown) -> bytes:
        written = [
            literal + ("" if value is None else _printable(value(shown)) if safe else value(shown))
            for literal, value in parts
        ]
        line = f"{''.join(written)}\n"
        try:
            return line.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a surrogate pair, in a header of another program
            return line.encode("utf-8", "backslashreplace")

    return fill


FIELDS: Mapping[str, Callable[[Shown], str | None]] = {
    "data": lambda shown: shown.message.body.decode("utf-8", "surrogateescape"),
    "key": lambda shown: shown.message.key,
    "id": lambda shown: shown.message.id,
    "topic": lambda shown: shown.message.topic,
    "position": lambda shown: shown.position,
    "partition": lambda shown: str(shown.partition),
    "time": lambda shown: shown.time,
    "type": lambda shown: shown.message.type,
    "source": lambda shown: shown.message.source,
    "content_type": lambda shown: shown.message.content_type,
    "correlation_id": lambda shown: shown.message.correlation_id,
    "causation_id": lambda shown: shown.message.causation_id,
    "headers": lambda shown: json.dumps(dict(shown.message.headers)),
    "group": lambda shown: shown.group,
    "attempt": lambda shown: None if shown.attempt is None else str(shown.attempt),
}
"""By name the fields of a template; one that the message does not have is empty."""

_HEADER = re.compile(r"header\[([^\[\]]+)\]")


def _field(name: str) -> Callable[[Shown], str]:
    if header := _HEADER.fullmatch(name):
        return lambda shown: shown.message.headers.get(header[1], "")
    if name not in FIELDS:
        from difflib import get_close_matches

        close = get_close_matches(name, FIELDS, n=1)
        raise UsageError(
            f"there is no field {{{name}}}"
            + (f"; did you mean {{{close[0]}}}?" if close else f"; there are {', '.join(FIELDS)}")
        )
    value = FIELDS[name]
    return lambda shown: value(shown) or ""


def _refused(spec: str | None, conversion: str | None) -> bool:
    if spec or conversion:
        raise ValueError("a field has no format of its own")
    return False


def _unescaped(literal: str) -> str:
    return re.sub(r"\\[nt0\\]", lambda found: _ESCAPES[found[0]], literal)


def _body(message: Message) -> str:
    try:
        text = message.body.decode()
    except UnicodeDecodeError:
        begin = message.body[:BINARY].hex(" ")
        more = " …" if len(message.body) > BINARY else ""
        return f"({len(message.body)} bytes) {begin}{more}"
    if len(text) > WIDTH and text[:1] in ("{", "["):
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return _printable(text)
    return _printable(text)


def _on_one_line(text: str) -> str:
    return _printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _printable(text: str) -> str:
    """Return `text` without the control characters that a message could send to a terminal."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
