"""Between Kafka's records and anymq's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from anymq.driver import CONTROL, Due, LazyHeaders, Received, Record, is_control_header

from .client.internals import Consumed, TopicPartition
from .varint import read

DUE = "anymq-due"
"""The header of a copy in a retry topic: when it is due, milliseconds since the epoch."""
_CONTROL, _DUE = CONTROL.encode(), DUE.encode()

_known: dict[tuple[str, int], tuple[bytes, bytes, int]] = {}
"""Of a header, and a length of all: what is before its value, its name, where its value ends."""
_MOST_KNOWN = 256
_NO_HEADERS = b"\0"

Pairs = Sequence[tuple[str, bytes | None]]


class Headers(LazyHeaders):
    """The headers of a record, decoded when first asked for. Of repeated ones the last counts."""

    __slots__ = ("_written",)

    def __init__(self, written: bytes) -> None:
        self._written = written
        self._found = None

    @property
    def plain(self) -> bool:
        if _CONTROL not in self._written:
            return True
        return not any(name.startswith(CONTROL) for name, _ in self.pairs())

    def find(self, name: str) -> str | None:
        """As `get`, for one that most messages have at the same place as those before them."""
        written = self._written
        if self._found is None:
            known = _known.get((name, len(written)))
            # The same up to where it begins; and it is there once, as of several the last counts.
            if known and written.startswith(known[0]) and written.count(known[1]) == 1:
                return written[len(known[0]) : known[2]].decode("utf-8", "backslashreplace")
            self._learn(name)
        return self.all.get(name)

    def _learn(self, name: str) -> None:
        place = _place_of(self._written, name.encode()) if self._written is not _DUE else None
        if place is not None:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            begin, end = place
            _known[name, len(self._written)] = self._written[:begin], name.encode(), end

    def due(self) -> int:
        """When the record may be delivered, milliseconds since the epoch; 0: it does not say."""
        if _DUE in self._written:
            for name, value in self.pairs():
                if name == DUE and value is not None and value.isdigit() and len(value) < 16:
                    return int(value)
        return 0

    def pairs(self) -> Pairs:
        """The headers as they came."""
        return pairs(self._written)

    def read(self) -> dict[str, str]:
        return {
            name: "" if value is None else value.decode("utf-8", "backslashreplace")
            for name, value in self.pairs()
            if name != DUE
        }


class ReadHeaders(Headers):
    """Headers that aiokafka has read."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Pairs) -> None:
        # As if there were control headers: then all of it is looked at.
        super().__init__(_DUE)
        self._pairs = pairs

    def pairs(self) -> Pairs:
        return self._pairs


def _place_of(written: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the value of the first header of that name begins, and where it ends."""
    count, place = read(written, 0)
    for _ in range(count):
        size, place = read(written, place)
        found = written[place : place + size] == name
        size, place = read(written, place + size)
        if found:
            return (place, place + size) if size >= 0 else None
        place += max(size, 0)
    return None


def pairs(written: bytes) -> Pairs:
    """Return the headers, whose number stands before them."""
    count, place = read(written, 0)
    found: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, place = read(written, place)
        name = written[place : place + size].decode("utf-8", "backslashreplace")
        size, place = read(written, place + size)
        found.append((name, None if size < 0 else written[place : place + size]))
        place += max(size, 0)
    return found


class KafkaReceived(Received):
    """A record that knows its offset. What is seldom asked for is made then.

    `value` is the body as Kafka has it: a tombstone has none. `token` is the epoch of the partition
    that it was handed out in, with which a reader settles it.
    """

    __slots__ = ("millis", "offset", "stamped", "tp", "value", "written_key")

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
        millis: int,
        stamped: int,
    ) -> None:
        self.tp = tp
        self.offset = offset
        self.value = value
        self.body = b"" if value is None else value
        self.headers = headers
        self.written_key = key
        self.millis = millis
        self.stamped = stamped
        self.token = None
        self.redeliveries = 0
        self.not_before = None

    def __getattr__(self, name: str) -> Any:
        make = _MADE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value

    @property
    def published(self) -> bool:
        return self.token is None or not self.token.retry

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0 and self.headers.plain

    def header(self, name: str) -> str | None:
        return self.headers.find(name)

    @property
    def size(self) -> int:
        """About how much memory it holds."""
        return 200 + len(self.body) + len(self.written_key or b"")


class Unreadable(KafkaReceived):
    """In the place of a batch that cannot be read, at its last offset; `reason` says why not."""

    __slots__ = ("reason",)

    def __init__(self, tp: TopicPartition, offset: int, millis: int, reason: str) -> None:
        super().__init__(tp, offset, None, Headers(_NO_HEADERS), None, millis, 0)
        self.reason = reason


def _native(record: KafkaReceived) -> Consumed:
    key, value, tp = record.written_key, record.value, record.tp
    return Consumed(
        tp.topic,
        tp.partition,
        record.offset,
        record.millis,
        record.stamped,
        key,
        value,
        None,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        cast("Any", tuple(record.headers.pairs())),
    )


def _position(record: KafkaReceived) -> str:
    prefix = record.token.prefix if record.token is not None else ""
    return f"{prefix}{record.tp.partition}:{record.offset}"


def _key(record: KafkaReceived) -> str | None:
    key = record.written_key
    return None if key is None else key.decode("utf-8", "backslashreplace")


def _partition(record: KafkaReceived) -> int:
    number: int = record.tp.partition
    return number


def _time(record: KafkaReceived) -> float | None:
    return record.millis / 1000 if record.millis >= 0 else None


_MADE: dict[str, Callable[[KafkaReceived], Any]] = {
    "content_type": lambda _: None,
    "key": _key,
    "native": _native,
    "partition": _partition,
    "position": _position,
    "time": _time,
}


def written_key(record: Record) -> bytes | None:
    """Return the key of `record`; of a copy the very bytes that the original had."""
    original = record.original
    if isinstance(original, KafkaReceived) and original.key == record.key:
        return original.written_key
    return None if record.key is None else record.key.encode()


def written_value(record: Record) -> bytes | None:
    """Return the body of `record`; none for the copy of a tombstone."""
    original = record.original
    tombstone = isinstance(original, KafkaReceived) and original.value is None
    return None if tombstone and not record.body else record.body


def written_headers(record: Record) -> list[tuple[str, bytes | None]]:
    """Return the headers of `record`; of a copy the very bytes, and as often as they came."""
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
        # What is no header for anymq, though one for the publisher's own consumers.
        lost = name not in headers and is_control_header(name) and not name.startswith(CONTROL)
        if lost and name.lower() != "content-type":
            found += [(name, raw) for raw in values]
    return found


def received(record: Consumed) -> KafkaReceived:
    """Return what aiokafka has read."""
    return KafkaReceived(
        TopicPartition(record.topic, record.partition),
        record.offset,
        record.value,
        ReadHeaders(record.headers),
        record.key,
        record.timestamp,
        record.timestamp_type,
    )
