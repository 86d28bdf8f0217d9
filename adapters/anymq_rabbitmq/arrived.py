"""`Arrived`: a message of anymq's as it came from a queue, decoded where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anymq.driver import Received

from . import wire
from .consumer import Delivery
from .encoding import TIME_ENTRY

_OWN = wire.HEADERS | wire.DELIVERY_MODE | wire.MESSAGE_ID | wire.TIMESTAMP
_TYPED = _OWN | wire.CONTENT_TYPE
_TIME_SIZE = len(TIME_ENTRY % 0)
_TIME_HEAD = (TIME_ENTRY % 0)[:-13]
_CONTROL = b"anymq-"
_SPELLINGS = (b"\x05ce-id", b"cloudEvents_")
_FLAGS = {_OWN.to_bytes(2, "big"): False, _TYPED.to_bytes(2, "big"): True}


class Arrived(Received):
    """What is not there is made by `__getattr__` at the first look."""

    __slots__ = ("_table",)

    def __init__(self, delivery: Delivery, table: int, position: str, partition: int) -> None:
        """`table` is where the headers begin in the properties."""
        self.body = delivery.body
        self.position = position
        self.native = delivery
        self.key = None
        self.redeliveries = 0
        self.partition = partition
        self.not_before = None
        self._table = table

    @property
    def fresh(self) -> bool:
        return self.redeliveries == 0

    def __getattr__(self, name: str) -> Any:
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self.native.properties, self._table)
        setattr(self, name, value)
        return value


def arrived(delivery: Delivery, partition: int = 0) -> Arrived | None:
    """The record of a first delivery that anymq published to all groups; None for any other.

    Its properties are those that `encoding` writes, in that order, with the time as the first
    header. What versions before 0.1.0 wrote has the attributes of its event under other names.
    """
    properties = delivery.properties
    typed = _FLAGS.get(properties[:2])
    if typed is None or delivery.redelivered:
        return None
    table = 3 + properties[2] if typed else 2
    begin = table + 4 + _TIME_SIZE
    end = table + 4 + int.from_bytes(properties[table : table + 4], "big")
    if (
        begin > end
        or not properties.startswith(_TIME_HEAD, table + 4)
        or not properties[begin - 13 : begin].isdigit()
        or properties.find(_CONTROL, begin) >= 0
        or any([properties.find(other, begin) >= 0 for other in _SPELLINGS])
    ):
        return None
    name = properties[end + 2 : end + 2 + properties[end + 1]]
    if not name:
        return None
    return Arrived(delivery, table, name.decode("utf-8", "backslashreplace"), partition)


def _headers(properties: bytes, table: int) -> Mapping[str, str]:
    begin = table + 4 + _TIME_SIZE
    end = table + 4 + int.from_bytes(properties[table : table + 4], "big")
    # As if the time were the length of the table, which nobody looks at.
    return wire.headers(properties[begin - 4 : end])


def _time(properties: bytes, table: int) -> float:
    end = table + 4 + _TIME_SIZE
    return int(properties[end - 13 : end]) / 1000


def _content_type(properties: bytes, table: int) -> str | None:
    return wire.text(properties[2:table]) if table > 2 else None


_LATE: dict[str, Callable[[bytes, int], Any]] = {
    "headers": _headers,
    "time": _time,
    "content_type": _content_type,
}
