"""`Outgoing`: a message to publish, from a text or a line of standard input."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import MessageTooLarge
from ..names import check_attribute, check_headers, check_id, check_key

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
RESERVED = ("anymq-", "ce-", "ce_")
"""The beginnings of the headers that are read from a broker, but that no application sets."""


class BadLine(Exception):
    """A line of standard input that cannot be published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish."""

    body: bytes
    content_type: str | None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    id: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None

    def check(self, max_body: float) -> None:
        """Raise the error of anymq that publishing would raise before it sends anything."""
        if len(self.body) > max_body:
            raise MessageTooLarge(
                f"the body is {len(self.body)} bytes; at most {max_body:.0f} are allowed"
            )
        if self.key is not None:
            check_key(self.key)
        if self.id is not None:
            check_id(self.id)
        if self.headers:
            check_headers(self.headers)
        for name in ("type", "content_type", "correlation_id", "causation_id"):
            value = getattr(self, name)
            if value is not None:
                check_attribute(name.replace("_", " "), value)


def of_text(text: str) -> Outgoing:
    """Return a message whose body is `text`; it is JSON if it parses as JSON."""
    return Outgoing(body=text.encode(), content_type=JSON if _is_json(text) else TEXT)


def of_line(line: bytes, *, plain: bool) -> Outgoing:
    """Return the message in a line: an envelope as `sub --json` writes it, or a JSON body.

    With `plain` every line is a body, JSON or not. Raises `BadLine`.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 at byte {error.start + 1}") from error
    if plain:
        return of_text(text)
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"{_problem(error)}; --plain publishes lines as they are") from error
    if isinstance(value, dict) and "anymq" in value and "kind" in value:
        return _of_envelope(value)
    return Outgoing(body=line, content_type=JSON)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not JSON: nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at column {error.colno}: {error.msg}"
    return f"not JSON: {error}"


def _is_json(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _of_envelope(envelope: Mapping[str, Any]) -> Outgoing:
    if envelope["anymq"] != 1:
        raise BadLine("an envelope of another version of anymq; --plain publishes it as it is")
    if envelope["kind"] != "message":
        raise BadLine(f"an envelope of kind {envelope['kind']!r}, which is no message")
    data = envelope.get("data")
    if not isinstance(data, dict):
        raise BadLine("a message without data")
    texts = {
        name: _text(data, name)
        for name in ("key", "type", "content_type", "correlation_id", "causation_id")
    }
    return Outgoing(body=_body(data), headers=_headers(data), **texts)


def _body(data: Mapping[str, Any]) -> bytes:
    text, coded = _text(data, "body"), _text(data, "body_base64")
    try:
        if text is not None:
            return text.encode()
        if coded is not None:
            return b64decode(coded, validate=True)
    except ValueError as error:
        raise BadLine(f"a body that cannot be decoded: {error}") from error
    raise BadLine("a message without body and body_base64")


def _headers(data: Mapping[str, Any]) -> dict[str, str]:
    headers = data.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise BadLine("headers that are no object of texts")
    return {k: v for k, v in headers.items() if not k.lower().startswith(RESERVED)}


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"a {name} that is no text")
    return value
