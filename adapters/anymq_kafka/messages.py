"""Records between Kafka's form and anymq's: `KafkaReceived`, and the raw parts of a `Record`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from anymq.driver import CONTROL, Due, LazyHeaders, Received, Record, is_control_header

from .client.codec import decode_varint
from .client.compat import Consumed, TopicPartition

DUE = "anymq-due"
"""The header of a record in a delay topic: its due time, in milliseconds since the epoch."""
_CONTROL, _DUE = CONTROL.encode(), DUE.encode()

_known: dict[tuple[str, int], tuple[bytes, bytes, int]] = {}
"""By a header's name and the length of all headers: the bytes before its value, its name in bytes,
and the index after its value."""
_MAX_KNOWN = 256
_NO_HEADERS = b"\0"
_RECORD_OVERHEAD_BYTES = 200

Pairs = Sequence[tuple[str, bytes | None]]
"""Headers in their order, with raw values."""


def now_ms() -> float:
    """Return the wall-clock time in milliseconds: the only clock that processes share."""
    return time.time() * 1000


class Headers(LazyHeaders):
    """The headers of a record, decoded on first use. Of repeated names the last one counts."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._found = None

    @property
    def plain(self) -> bool:
        if _CONTROL not in self._raw:
            return True
        return not any(name.startswith(CONTROL) for name, _ in self.pairs())

    def find(self, name: str) -> str | None:
        """Return a header, as `get`; fast if most records have it at the same index."""
        raw = self._raw
        if self._found is None:
            known = _known.get((name, len(raw)))
            # It must occur once only, because of repeated names the last one counts.
            if known and raw.startswith(known[0]) and raw.count(known[1]) == 1:
                return raw[len(known[0]) : known[2]].decode("utf-8", "backslashreplace")
            self._learn(name)
        return self.all.get(name)

    def _learn(self, name: str) -> None:
        span = _value_span(self._raw, name.encode()) if self._raw is not _DUE else None
        if span is not None:
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            begin, end = span
            _known[name, len(self._raw)] = self._raw[:begin], name.encode(), end

    def due(self) -> int:
        """Return the due time, in milliseconds since the epoch; 0 without one."""
        if _DUE in self._raw:
            for name, value in self.pairs():
                if name == DUE and value is not None and value.isdigit() and len(value) < 16:
                    return int(value)
        return 0

    def pairs(self) -> Pairs:
        """Return the headers as they came, repeated names included."""
        return decode_pairs(self._raw)

    def read(self) -> dict[str, str]:
        return {
            name: "" if value is None else value.decode("utf-8", "backslashreplace")
            for name, value in self.pairs()
            if name != DUE
        }


class DecodedHeaders(Headers):
    """Headers that aiokafka has decoded."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Pairs) -> None:
        # These bytes seem to hold control headers, so that every look-up examines the pairs.
        super().__init__(_DUE)
        self._pairs = pairs

    def pairs(self) -> Pairs:
        return self._pairs


def _value_span(raw: bytes, name: bytes) -> tuple[int, int] | None:
    """Return the indexes where the value of the first header `name` begins and ends."""
    count, index = decode_varint(raw, 0)
    for _ in range(count):
        size, index = decode_varint(raw, index)
        found = raw[index : index + size] == name
        size, index = decode_varint(raw, index + size)
        if found:
            return (index, index + size) if size >= 0 else None
        index += max(size, 0)
    return None


def decode_pairs(raw: bytes) -> Pairs:
    """Return the headers in `raw`, which begins with their number."""
    count, index = decode_varint(raw, 0)
    found: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, index = decode_varint(raw, index)
        name = raw[index : index + size].decode("utf-8", "backslashreplace")
        size, index = decode_varint(raw, index + size)
        found.append((name, None if size < 0 else raw[index : index + size]))
        index += max(size, 0)
    return found


class KafkaReceived(Received):
    """A record with its offset. Attributes that few callers use are computed on first use.

    `value` is the body as Kafka has it: None for a tombstone. `token` is the assignment of its
    partition in which it was delivered (`group.assignment.Partition`), None without a group.
    """

    __slots__ = ("offset", "raw_key", "timestamp_ms", "timestamp_type", "tp", "value")

    headers: Headers
    not_before: Due | None
    token: Any

    def __init__(
        self,
        tp: TopicPartition,
        offset: int,
        value: bytes | None,
        headers: Headers,
        key: bytes | None,
        timestamp_ms: int,
        timestamp_type: int,
    ) -> None:
        self.tp = tp
        self.offset = offset
        self.value = value
        self.body = b"" if value is None else value
        self.headers = headers
        self.raw_key = key
        self.timestamp_ms = timestamp_ms
        self.timestamp_type = timestamp_type
        self.token = None
        self.redeliveries = 0
        self.not_before = None

    def __getattr__(self, name: str) -> Any:
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value

    @property
    def published(self) -> bool:
        return self.token is None or not self.token.is_delay_topic

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0 and self.headers.plain

    def header(self, name: str) -> str | None:
        return self.headers.find(name)

    @property
    def size(self) -> int:
        """The memory it takes, in bytes, roughly."""
        return _RECORD_OVERHEAD_BYTES + len(self.body) + len(self.raw_key or b"")


class UnreadableBatch(KafkaReceived):
    """All records of a batch that cannot be read. Its offset is the batch's last one."""

    __slots__ = ("reason",)

    def __init__(self, tp: TopicPartition, offset: int, timestamp_ms: int, reason: str) -> None:
        super().__init__(tp, offset, None, Headers(_NO_HEADERS), None, timestamp_ms, 0)
        self.reason = reason


def _native(record: KafkaReceived) -> Consumed:
    key, value, tp = record.raw_key, record.value, record.tp
    return Consumed(
        tp.topic,
        tp.partition,
        record.offset,
        record.timestamp_ms,
        record.timestamp_type,
        key,
        value,
        None,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        cast("Any", tuple(record.headers.pairs())),
    )


def _position(record: KafkaReceived) -> str:
    prefix = record.token.position_prefix if record.token is not None else ""
    return f"{prefix}{record.tp.partition}:{record.offset}"


def _key(record: KafkaReceived) -> str | None:
    key = record.raw_key
    return None if key is None else key.decode("utf-8", "backslashreplace")


def _partition(record: KafkaReceived) -> int:
    number: int = record.tp.partition
    return number


def _time(record: KafkaReceived) -> float | None:
    return record.timestamp_ms / 1000 if record.timestamp_ms >= 0 else None


_LAZY: dict[str, Callable[[KafkaReceived], Any]] = {
    "content_type": lambda _: None,
    "key": _key,
    "native": _native,
    "partition": _partition,
    "position": _position,
    "time": _time,
}
"""The attributes of a `KafkaReceived` that are computed on first use."""


def as_kafka(records: Iterable[Received]) -> Iterable[KafkaReceived]:
    """Return `records` as the type that every source of this adapter delivers."""
    return cast("Iterable[KafkaReceived]", records)


def from_aiokafka(record: Consumed) -> KafkaReceived:
    """Return a record that aiokafka has decoded."""
    return KafkaReceived(
        TopicPartition(record.topic, record.partition),
        record.offset,
        record.value,
        DecodedHeaders(record.headers),
        record.key,
        record.timestamp,
        record.timestamp_type,
    )


def raw_key(record: Record) -> bytes | None:
    """Return the key of `record` in bytes; of a copy the bytes of the original."""
    original = record.original
    if isinstance(original, KafkaReceived) and original.key == record.key:
        return original.raw_key
    return None if record.key is None else record.key.encode()


def raw_value(record: Record) -> bytes | None:
    """Return the body of `record`; None for the copy of a tombstone."""
    original = record.original
    tombstone = isinstance(original, KafkaReceived) and original.value is None
    return None if tombstone and not record.body else record.body


def raw_headers(record: Record) -> list[tuple[str, bytes | None]]:
    """Return the headers of `record`; of a copy the bytes of the original, also repeated names."""
    headers, original = record.headers, record.original
    if not isinstance(original, KafkaReceived):
        return [(name, value.encode()) for name, value in headers.items()]
    came: dict[str, list[bytes | None]] = {}
    for name, raw in original.headers.pairs():
        came.setdefault(name, []).append(raw)
    found: list[tuple[str, bytes | None]] = []
    for name, value in headers.items():
        same = original.headers.get(name) == value and name in came
        found += [(name, raw) for raw in came[name]] if same else [(name, value.encode())]
    for name, values in came.items():
        # The core leaves these out of a copy, but consumers without anymq may need them.
        dropped = name not in headers and is_control_header(name) and not name.startswith(CONTROL)
        if dropped and name.lower() != "content-type":
            found += [(name, raw) for raw in values]
    return found
