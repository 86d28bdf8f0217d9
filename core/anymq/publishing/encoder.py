"""`Outlet`: a topic as publishing sees it. What its messages share is found out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from ..consuming.delivery import current
from ..driver.records import Record
from ..driver.specs import Binding
from ..errors import MessageTooLarge
from ..identity import scope_of, unique_id
from ..ids import stamp, stamps
from ..names import check_id, check_key
from ..payload import check_payload, encoder_of, fits_by_class, type_name
from ..topic import Topic
from ..wire.cloudevents import Envelope, envelope_of

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

    __slots__ = (
        "_binding",
        "_kinds",
        "_max_body",
        "_native_key",
        "_scope",
        "_source",
        "_where",
        "topic",
    )

    def __init__(
        self, topic: Topic[Any], binding: Binding, *, source: str, max_body: float, where: str
    ) -> None:
        self.topic = topic
        self._binding = binding
        self._native_key = binding.native_key
        self._source = source
        self._scope = scope_of(source)
        self._max_body = max_body
        self._where = where
        self._kinds: dict[type, Kind] = {}

    def record(
        self,
        payload: Any,
        key: str | None,
        id: str | None,
        headers: Mapping[str, str],
        type: str | None = None,
    ) -> Record:
        """Return a record for `payload`; `headers` have been checked.

        Raises `ConfigurationError` or `MessageTooLarge` for what cannot be published.
        """
        kind = self._kinds.get(payload.__class__) or self._kind(payload)
        body = payload if kind.encode is None else kind.encode(payload)
        if len(body) > self._max_body:
            raise self._too_large(body)
        envelope = kind.envelope if not type else self._typed(kind, type)
        if key is not None:
            check_key(key)
        cause = current.get()
        fresh, now = stamp()
        if (
            id is not None
            or headers
            or cause is not None
            or (key is not None and not self._native_key)
        ):
            id = fresh if id is None else check_id(id)
            unique = self._scope + id if id is fresh else unique_id(self._scope, id)
            flow = (cause.message.correlation_id or cause.message.id) if cause else None
            caused = cause.message.id if cause else None
            own = envelope.own(id, now, key, flow, caused, headers)
        else:
            id = fresh
            unique = self._scope + id
            own = {envelope.id: id, envelope.time: now}
        return Record(
            self.topic.name, id, unique, body, key, own, envelope.common, envelope.content_type
        )

    def records(
        self,
        payloads: Sequence[Any],
        key: str | None,
        keys: Sequence[str] | None,
        ids: Sequence[str] | None,
        headers: Mapping[str, str],
    ) -> list[Record]:
        """Return a record for each payload, as `record` does; with the key of all, or each its
        own."""
        keyed = key is not None or keys is not None
        if not (ids or headers or (keyed and not self._native_key)) and current.get() is None:
            return self._plain(payloads, key, keys)
        return [
            self.record(
                payload,
                key if keys is None else keys[index],
                None if ids is None else ids[index],
                headers,
            )
            for index, payload in enumerate(payloads)
        ]

    def _plain(
        self, payloads: Sequence[Any], key: str | None, keys: Sequence[str] | None
    ) -> list[Record]:
        """The same for what has nothing but its payload, and a key that the broker carries."""
        if key is not None:
            check_key(key)
        all_keys = repeat(key) if keys is None else map(check_key, keys)
        kinds, name, most = self._kinds, self.topic.name, self._max_body
        scope = self._scope
        ids, now = stamps(len(payloads))
        found: list[Record] = []
        for payload, id, its_key in zip(payloads, ids, all_keys, strict=False):
            kind = kinds.get(payload.__class__) or self._kind(payload)
            body = payload if kind.encode is None else kind.encode(payload)
            if len(body) > most:
                raise self._too_large(body)
            envelope = kind.envelope
            own = {envelope.id: id, envelope.time: now}
            common, content_type = envelope.common, envelope.content_type
            record = Record(name, id, scope + id, body, its_key, own, common, content_type)
            found.append(record)
        return found

    def _too_large(self, body: bytes) -> MessageTooLarge:
        return MessageTooLarge(
            f"the body is {len(body)} bytes; at most {self._max_body} are allowed on {self._where}"
        )

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
