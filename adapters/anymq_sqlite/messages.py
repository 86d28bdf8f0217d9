"""Records as rows, and rows as received records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

from anymq.driver import CONTROL, LazyHeaders, Published, Received, Record, SharedHeaders

from .file.log import Message
from .file.pending import Taken, Token

_CONTROL = f'"{CONTROL}'


class Entry(NamedTuple):
    """A message to store. A `due` time in the future delays it.

    `round_robin` selects the partition of a message without a key.
    """

    topic: str
    uniq: str
    key: str | None
    body: bytes
    headers: str
    due: float | None
    round_robin: int


class EntryEncoder:
    """Encodes records as entries; keeps the native name of each topic."""

    def __init__(self) -> None:
        self.natives: dict[str, str] = {}
        """By topic the native name."""
        self._round_robin: defaultdict[str, count[int]] = defaultdict(count)

    def encode(self, record: Record) -> Entry:
        """Return the entry of `record`."""
        topic = self.natives.get(record.topic, record.topic)
        key = record.key
        number = next(self._round_robin[topic]) if key is None else 0
        headers = encode_headers(record.common, record.own)
        return Entry(topic, record.unique, key, record.body, headers, record.deliver_at, number)


def encode_headers(common: SharedHeaders, own: Mapping[str, str]) -> str:
    """Return both as one JSON object; `common` is encoded once."""
    items = [f"{quoted(name)}: {quoted(value)}" for name, value in own.items()]
    if shared := common.encoded(_encode_shared):
        items.insert(0, shared)
    return f"{{{', '.join(items)}}}"


def _encode_shared(headers: Mapping[str, str]) -> str:
    return json.dumps(dict(headers))[1:-1]


def _decode_headers(text: str) -> dict[str, str]:
    """Return the headers in `text`; none if it is not a JSON object."""
    try:
        headers: Any = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(headers, dict):
        return {}
    for name, value in headers.items():
        if not isinstance(value, str):
            headers[name] = json.dumps(value)
    return headers


class JsonHeaders(LazyHeaders):
    """Headers stored as JSON text, decoded at their first use."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = None

    @property
    def plain(self) -> bool:
        return _CONTROL not in self._text and "\\" not in self._text

    def read(self) -> dict[str, str]:
        return _decode_headers(self._text)


class StoredMessage(Published):
    """A row of the log. `__getattr__` makes `headers` and `position` at their first use.

    `expired` says that its last owner neither settled it nor renewed its lease.
    """

    __slots__ = ("_headers_text", "expired")

    headers: Mapping[str, str]

    def __init__(
        self, message: Message, token: Token, redeliveries: int, *, expired: bool = False
    ) -> None:
        seq, self.key, self.body, self._headers_text, self.time, self.partition = message
        self.native = seq
        self.token = token
        self.redeliveries = redeliveries + expired
        self.expired = expired
        self.content_type = self.not_before = None

    def __getattr__(self, name: str) -> Any:
        if name == "headers":  # of every message, so without another call
            headers = self.headers = JsonHeaders(self._headers_text)
            return headers
        if name == "position":
            position = self.position = str(self.native)
            return position
        raise AttributeError(name)


def received(message: Message) -> Received:
    """Return the record of a message that is read without a lease."""
    return StoredMessage(message, Token(message.seq, 0), 0)


def received_lease(taken: Taken) -> Received:
    """Return the record of a message that a member has taken."""
    message, token, redeliveries, expired = taken
    return StoredMessage(message, token, max(0, redeliveries), expired=expired)
