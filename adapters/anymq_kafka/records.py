"""Between anymq's records and Kafka's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from anymq.driver import Received, Record

from .aio import Consumed

DUE = "anymq-due"
"""The header of a copy in a retry topic: when it is due, milliseconds since the epoch."""


def wire_key(record: Record) -> bytes | None:
    return None if record.key is None else record.key.encode()


def wire_headers(record: Record) -> list[tuple[str, bytes]]:
    return [(name, value.encode()) for name, value in record.headers.items()]


class Headers(Mapping[str, str]):
    """The headers of a record, decoded when first asked for. Of repeated ones the last counts."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: Iterable[tuple[str, bytes | None]]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            self._decoded = {
                name: "" if value is None else value.decode("utf-8", "backslashreplace")
                for name, value in self._raw
                if name != DUE
            }
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


def received(
    record: Consumed, token: object, *, prefix: str = "", redeliveries: int = 0
) -> Received:
    """Return `record` as anymq's. Its key and headers may be anything; a tombstone has no body."""
    key = record.key
    return Received(
        record.value if record.value is not None else b"",
        Headers(record.headers),
        position=f"{prefix}{record.partition}:{record.offset}",
        token=token,
        native=record,
        key=None if key is None else key.decode("utf-8", "backslashreplace"),
        time=record.timestamp / 1000 if record.timestamp >= 0 else None,
        redeliveries=redeliveries,
        partition=record.partition,
    )


def due_of(record: Consumed) -> int:
    """When `record` may be delivered, milliseconds since the epoch; 0 if it does not say."""
    for name, value in record.headers:
        if name == DUE and value is not None and value.isdigit() and len(value) < 16:
            return int(value)
    return 0


def size_of(record: Consumed) -> int:
    """About how much memory `record` holds."""
    return 200 + len(record.value or b"") + len(record.key or b"")
