"""The wire format of all backends: CloudEvents 1.0 in binary mode.

An attribute becomes a header, named by the driver's `Binding`. The body is the event's data
unchanged (CloudEvents 1.0 §3, and the Kafka and NATS protocol bindings). The key is a native one or
the `partitionkey` extension; `correlationid` and `causationid` are the correlation extension. Other
attributes are kept as headers `ce-<name>`. A message without these headers is accepted, with its
position as its id.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from ..driver.clock import aware, moment
from ..driver.records import Received, Record, SharedHeaders
from ..driver.specs import Binding
from ..message import Message
from ..names import is_control_header

STRUCTURED = b'"specversion"'
"""A substring of every body in structured mode, for a quick check."""

_UNSAFE = re.compile(r'[^!#$&-~]|"|%')


class Envelope:
    """The headers shared by all messages of one source, type and content type."""

    __slots__ = ("binding", "common", "content_type", "id", "time", "type")

    def __init__(
        self, binding: Binding, source: str | None, type: str, content_type: str | None
    ) -> None:
        attributes = {"specversion": "1.0", "source": source or "anymq", "type": type}
        common = {
            binding.prefix + name: _percent(value) if binding.percent else value
            for name, value in attributes.items()
        }
        if binding.content_type is not None and content_type is not None:
            common[binding.content_type] = content_type
        self.binding = binding
        self.common = SharedHeaders(common)
        self.type = type
        self.content_type = content_type
        self.id = binding.prefix + "id"
        self.time = binding.prefix + "time"

    def own(
        self,
        id: str,
        time: str | None,
        key: str | None,
        correlation_id: str | None,
        causation_id: str | None,
        headers: Mapping[str, str],
    ) -> dict[str, str]:
        """Return the headers of one message, without the shared ones."""
        binding = self.binding
        percent = binding.percent
        own = {self.id: _percent(id) if percent else id}
        if time is not None:
            own[self.time] = time
        prefix = binding.prefix
        if key is not None and not binding.native_key:
            own[prefix + "partitionkey"] = _percent(key) if percent else key
        if correlation_id is not None:
            own[prefix + "correlationid"] = _percent(correlation_id) if percent else correlation_id
        if causation_id is not None:
            own[prefix + "causationid"] = _percent(causation_id) if percent else causation_id
        if headers:
            self._add(own, headers)
        return own

    def _add(self, own: dict[str, str], headers: Mapping[str, str]) -> None:
        prefix, percent, common = self.binding.prefix, self.binding.percent, self.common
        for name, value in headers.items():
            if not name.startswith("ce-"):
                if name not in common:
                    own[name] = value
            elif (attribute := prefix + name[3:]) not in own and attribute not in common:
                own[attribute] = _percent(value) if percent else value


envelope_of = lru_cache(maxsize=512)(Envelope)
"""Return the envelope for these values, the same object each time."""


def encode(
    message: Message, binding: Binding, *, unique: str, extra: Mapping[str, str] | None = None
) -> Record:
    """Return `message` as a record, with the `extra` headers added unchanged."""
    envelope = envelope_of(
        binding, message.source, message.type or message.topic, message.content_type
    )
    own = envelope.own(
        message.id,
        None if message.time is None else _stamp(message.time),
        message.key,
        message.correlation_id,
        message.causation_id,
        message.headers,
    )
    if extra:
        own.update(extra)
    return Record(
        topic=message.topic,
        id=message.id,
        unique=unique,
        body=message.body,
        key=message.key,
        headers=own,
        common=envelope.common,
        content_type=message.content_type,
        original=message.original,
    )


def _stamp(time: datetime) -> str:
    """Return the time in the format of RFC 3339."""
    return time.isoformat().replace("+00:00", "Z")


def decode(received: Received, binding: Binding, topic: str) -> Message:
    """Return the message in `received`, from any publisher."""
    attributes: dict[str, str] = {}
    headers: dict[str, str] = {}
    content_type = received.content_type
    prefix = binding.prefix.lower()
    for name, value in received.headers.items():
        lower = name.lower()
        if lower in (binding.content_type, "content-type"):
            content_type = content_type or value
        elif lower.startswith(prefix):
            attributes[lower[len(prefix) :]] = _unpercent(value) if binding.percent else value
        elif not is_control_header(name):
            headers[name] = value

    body = received.body
    if STRUCTURED in body and is_structured(content_type):
        event = structured(body)
        if event is not None:
            attributes, body = event
            content_type = None

    def take(name: str) -> str | None:
        return attributes.pop(name, None)

    take("specversion")
    key = take("partitionkey")
    message = Message(
        id=take("id") or f"{topic}@{received.position}",
        topic=topic,
        body=body,
        key=received.key if received.key is not None else key,
        content_type=take("datacontenttype") or content_type,
        type=take("type"),
        source=take("source"),
        time=_parse_time(take("time"), received.time),
        correlation_id=take("correlationid"),
        causation_id=take("causationid"),
        headers=MappingProxyType(headers),
        original=received,
    )
    for name, value in attributes.items():
        headers[f"ce-{name}"] = value
    return message


def is_structured(content_type: str | None) -> bool:
    """Whether a body of this type is a CloudEvents event in JSON, with its attributes."""
    return (content_type or "").lower().startswith("application/cloudevents+json")


def structured(body: bytes) -> tuple[dict[str, str], bytes] | None:
    """Return the attributes and the data of an event in JSON format; None for any other body."""
    try:
        event = json.loads(body)
        if not isinstance(event, dict) or not event.get("specversion"):
            return None
        if (coded := event.pop("data_base64", None)) is not None:
            event.pop("data", None)
            data = b64decode(coded, validate=True)
        else:
            data = _data(event)
        attributes = {
            name.lower(): value if isinstance(value, str) else json.dumps(value)
            for name, value in event.items()
            if value is not None
        }
        return _encodable(attributes), data
    except (ValueError, TypeError, RecursionError):
        return None


def _data(event: dict[str, Any]) -> bytes:
    """Remove the data from `event` and return it as bytes; text stays unless its type is JSON."""
    if "data" not in event:
        return b""
    data = event.pop("data")
    kind = str(event.setdefault("datacontenttype", "application/json")).partition(";")[0].lower()
    if isinstance(data, str) and not (kind.endswith("json")):
        return data.encode()
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _encodable(attributes: dict[str, str]) -> dict[str, str]:
    """Return the attributes with lone surrogates escaped, since UTF-8 cannot encode them."""
    return {
        name.encode(errors="backslashreplace").decode(): value.encode(
            errors="backslashreplace"
        ).decode()
        for name, value in attributes.items()
    }


def _parse_time(text: str | None, fallback: float | None) -> datetime | None:
    if text is not None:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            parsed = None
        if parsed is not None:
            return aware(parsed)
    return moment(fallback)


def _percent(value: str) -> str:
    if not _UNSAFE.search(value):
        return value
    return _UNSAFE.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode()), value)


def _unpercent(value: str) -> str:
    return unquote(value) if "%" in value else value
