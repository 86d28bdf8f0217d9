"""Between the core's records and the rows of the log."""

from __future__ import annotations

import json
from typing import Any

from anymq.driver import Received, Record

from .log import Entry
from .pending import Taken

ATTEMPT = "anymq-attempt"


def entry(record: Record, topic: str) -> Entry:
    """Return the row for `record`."""
    return Entry(topic, record.unique, record.key, record.body, json.dumps(record.headers))


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
