"""Between the core's records and the rows of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anymq.driver import Published, Received, Record

from .file.headers import Headers, dump
from .file.log import Entry, Message
from .file.pending import Taken, Token


def entry(record: Record, topic: str, turn: int) -> Entry:
    """Return the row for `record`, which is the `turn`-th of its topic."""
    headers = dump(record.common, record.own)
    due = record.deliver_at
    return Entry(topic, record.unique, record.key, record.body, headers, due, turn)


class Stored(Published):
    """A row of the log. Its headers are read when somebody asks for them."""

    __slots__ = ("_text", "vanished")

    headers: Mapping[str, str]

    def __init__(
        self, message: Message, token: Token, redeliveries: int, vanished: bool = False
    ) -> None:
        seq, self.key, self.body, self._text, self.time, self.partition = message
        self.native = seq
        self.token = token
        self.redeliveries = redeliveries + vanished
        self.vanished = vanished
        self.content_type = self.not_before = None

    def __getattr__(self, name: str) -> Any:
        if name == "position":
            self.position = str(self.native)
        elif name == "headers":
            self.headers = Headers(self._text)
        else:
            raise AttributeError(name)
        return getattr(self, name)


def stored(message: Message) -> Received:
    """Return the record of a row that nobody takes."""
    return Stored(message, Token(message.seq, 0), 0)


def received(taken: Taken) -> Received:
    """Return the record of a row that was taken."""
    message, token, redeliveries, vanished = taken
    return Stored(message, token, max(0, redeliveries), vanished)
