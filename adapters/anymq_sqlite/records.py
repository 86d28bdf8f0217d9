"""Between the core's records and the rows of the log."""

from __future__ import annotations

import json
from typing import Any

from anymq.driver import Received, Record

from .log import Entry, Message
from .pending import Taken, Token

ATTEMPT = "anymq-attempt"


def entry(record: Record, topic: str, turn: int) -> Entry:
    """Return the row for `record`, which is the `turn`-th of its topic."""
    headers = json.dumps(record.headers)
    due = record.deliver_at
    return Entry(topic, record.unique, record.key, record.body, headers, due, turn)


def stored(message: Message) -> Received:
    """Return the record of a row that nobody takes."""
    return received(Taken(message, Token(message.seq, 0), 0))


def received(taken: Taken) -> Received:
    """Return the record of a row that was taken."""
    message, token, redeliveries = taken
    headers = _headers(message.headers)
    if redeliveries < 0:
        # Set back below what its own header says, so the header has to change.
        headers[ATTEMPT] = str(max(1, _attempt(headers) + redeliveries))
        redeliveries = 0
    return Received(
        message.body,
        headers,
        position=str(message.seq),
        token=token,
        native=message.seq,
        key=message.key,
        time=message.time,
        redeliveries=redeliveries,
        partition=message.part,
    )


def _headers(text: str) -> dict[str, str]:
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


def _attempt(headers: dict[str, str]) -> int:
    value = headers.get(ATTEMPT, "1")
    return int(value) if value.isdecimal() else 1
