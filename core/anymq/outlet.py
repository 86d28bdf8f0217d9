"""`Outlet`: a topic as publishing sees it. What its messages share is found out once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .cloudevents import Envelope, envelope_of
from .delivery import current
from .driver import Binding, Record
from .errors import MessageTooLarge
from .message import NO_HEADERS, new_id
from .names import check_headers, check_key
from .payload import check_payload, encoder_of, fits_by_class, type_name
from .topic import Topic

MOST_KINDS = 256
"""Payload classes that are remembered."""


class Kind:
    """What all payloads of one class have in common: how they are encoded, and their envelope."""

    __slots__ = ("encode", "envelope")

    def __init__(self, encode: Callable[[Any], bytes] | None, envelope: Envelope) -> None:
        self.encode = encode
        self.envelope = envelope


class Outlet:
    """Makes records of payloads for one topic."""

    __slots__ = ("_binding", "_kinds", "_max_body", "_native_key", "_source", "_where", "topic")

    def __init__(
        self, topic: Topic[Any], binding: Binding, *, source: str, max_body: float, where: str
    ) -> None:
        self.topic = topic
        self._binding = binding
        self._native_key = binding.native_key
        self._source = source
        self._max_body = max_body
        self._where = where
        self._kinds: dict[type, Kind] = {}

    def records(
        self,
        payloads: Iterable[Any],
        key: str | None = None,
        *,
        keys: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        type: str | None = None,
    ) -> list[Record]:
        """Return a record for each payload, with the key of all or its own among `keys`.

        Raises `ConfigurationError` or `MessageTooLarge` for what cannot be published.
        """
        kinds, name, most = self._kinds, self.topic.name, self._max_body
        checked = check_headers(headers) if headers else NO_HEADERS
        cause = current.get()
        plain = cause is None and not checked and (self._native_key or (key is None and not keys))
        if key is not None:
            check_key(key)
        stamp = _now()
        found: list[Record] = []
        for index, payload in enumerate(payloads):
            kind = kinds.get(payload.__class__) or self._kind(payload)
            body = payload if kind.encode is None else kind.encode(payload)
            if len(body) > most:
                raise MessageTooLarge(
                    f"the body is {len(body)} bytes; at most {most} are allowed on {self._where}"
                )
            envelope = kind.envelope if not type else self._typed(kind, type)
            if keys is not None:
                key = check_key(keys[index])
            id = new_id() if ids is None else check_key(ids[index]) or new_id()
            if plain and ids is None:
                own = {envelope.id: id, envelope.time: stamp}
            else:
                flow = (cause.message.correlation_id or cause.message.id) if cause else None
                caused = cause.message.id if cause else None
                own = envelope.own(id, stamp, key, flow, caused, checked)
            found.append(
                Record(
                    topic=name,
                    id=id,
                    unique=id,
                    body=body,
                    key=key,
                    headers=own,
                    common=envelope.common,
                    content_type=envelope.content_type,
                )
            )
        return found

    def _kind(self, payload: Any) -> Kind:
        topic = self.topic
        check_payload(payload, topic)
        encode, content_type = encoder_of(payload)
        kind = Kind(encode, self._envelope(type_name(payload, topic.name), content_type))
        if fits_by_class(topic) and len(self._kinds) < MOST_KINDS:
            self._kinds[payload.__class__] = kind
        return kind

    def _typed(self, kind: Kind, type: str) -> Envelope:
        return self._envelope(check_key(type), kind.envelope.content_type)

    def _envelope(self, type: str, content_type: str | None) -> Envelope:
        return envelope_of(self._binding, self._source, type, content_type)


class _Watch:
    """Tells the time as RFC 3339 writes it; the second's text is made once a second."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = (-1, "")

    def now(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        last, text = self._state
        if second != last:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._state = (second, text)
        return f"{text}.{nanoseconds // 1000:06d}Z"


_now = _Watch().now
