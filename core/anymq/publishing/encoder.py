"""`RecordEncoder`: builds the records of one topic, computing once what its messages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from types import MappingProxyType
from typing import Any

from ..consuming.delivery import Delivery, Flow, current
from ..driver.records import NO_HEADERS, Record
from ..driver.specs import Binding
from ..errors import MessageTooLarge
from ..identity import scope_of, unique_id
from ..ids import new_id, stamp, stamps
from ..message import Message
from ..names import check_headers, check_id, check_key
from ..payload import check_payload, encoder_of, fits_by_class, type_name
from ..topic import Topic
from ..wire.cloudevents import Envelope, envelope_of

MAX_PAYLOAD_CLASSES = 256
"""Payload classes whose encoders are remembered."""


class PayloadClass:
    """The encoder and the envelope shared by all payloads of one class."""

    __slots__ = ("encode", "envelope")

    def __init__(self, encode: Callable[[Any], bytes] | None, envelope: Envelope) -> None:
        self.encode = encode
        self.envelope = envelope


class RecordEncoder:
    """Builds records, or messages, of payloads for one topic."""

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
        self._kinds: dict[type, PayloadClass] = {}

    def record(
        self,
        payload: Any,
        key: str | None,
        id: str | None,
        headers: Mapping[str, str],
        type: str | None = None,
    ) -> Record:
        """Return a record for `payload`; `headers` have been checked.

        Raises `ConfigurationError` or `MessageTooLarge` for a message that cannot be published.
        """
        # As `_encoded`, on the path of every message.
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
            flow, caused = _flow_of(cause)
            own = envelope.own(id, now, key, flow, caused, headers)
        else:
            id = fresh
            unique = self._scope + id
            own = {envelope.id: id, envelope.time: now}
        return Record(
            self.topic.name, id, unique, body, key, own, envelope.common, envelope.content_type
        )

    def message(
        self,
        payload: Any,
        key: str | None = None,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str | None = None,
        now: datetime | None = None,
    ) -> Message:
        """Return the same as a `Message`, for publish middleware and requests."""
        kind, body = self._encoded(payload)
        envelope = kind.envelope if not type else self._typed(kind, type)
        flow, caused = _flow_of(current.get())
        return Message(
            id=new_id() if id is None else check_id(id),
            topic=self.topic.name,
            body=body,
            key=check_key(key) if key is not None else None,
            headers=MappingProxyType(check_headers(headers)) if headers else NO_HEADERS,
            content_type=envelope.content_type,
            type=envelope.type,
            source=self._source,
            time=now or datetime.now(UTC),
            correlation_id=flow,
            causation_id=caused,
        )

    def _encoded(self, payload: Any) -> tuple[PayloadClass, bytes]:
        """Return the class of `payload`, and its body. Raises if it cannot be published."""
        kind = self._kinds.get(payload.__class__) or self._kind(payload)
        body = payload if kind.encode is None else kind.encode(payload)
        if len(body) > self._max_body:
            raise self._too_large(body)
        return kind, body

    def records(
        self,
        payloads: Sequence[Any],
        key: str | None,
        keys: Sequence[str] | None,
        ids: Sequence[str] | None,
        headers: Mapping[str, str],
    ) -> list[Record]:
        """Return a record for each payload, with one key for all or a key for each."""
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
        """Return records that have only payloads, and keys that the broker carries natively."""
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

    def _kind(self, payload: Any) -> PayloadClass:
        topic = self.topic
        check_payload(payload, topic)
        encode, content_type = encoder_of(payload)
        kind = PayloadClass(encode, self._envelope(type_name(payload, topic.name), content_type))
        if fits_by_class(topic) and len(self._kinds) < MAX_PAYLOAD_CLASSES:
            self._kinds[payload.__class__] = kind
        return kind

    def _typed(self, kind: PayloadClass, type: str) -> Envelope:
        return self._envelope(check_key(type), kind.envelope.content_type)

    def _envelope(self, type: str, content_type: str | None) -> Envelope:
        return envelope_of(self._binding, self._source, type, content_type)


def _flow_of(cause: Delivery | Flow | None) -> tuple[str | None, str | None]:
    """Return the correlation and the causation id of a message published now."""
    if cause is None:
        return None, None
    if isinstance(cause, Flow):
        delivery = cause.delivery
        return cause.correlation_id, None if delivery is None else delivery.message.id
    message = cause.message
    return message.correlation_id or message.id, message.id
