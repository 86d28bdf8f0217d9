"""The CloudEvents headers that anymq sends, for raw clients that send the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

from ..contestant import Item

CONTENT_TYPE = "application/octet-stream"


class Headers:
    """Creates the ids and headers of messages at the lowest cost.

    Names and lengths equal those of anymq. `content_type` is the name of the content-type header,
    None if the broker has a property for it. With `keyed`, the key is sent as a header.
    """

    def __init__(self, topic: str, *, prefix: str, content_type: str | None, keyed: bool) -> None:
        self._same = {
            f"{prefix}specversion": "1.0",
            f"{prefix}source": "bench",
            f"{prefix}type": topic,
        }
        if content_type is not None:
            self._same[content_type] = CONTENT_TYPE
        self._id = f"{prefix}id"
        self._time = f"{prefix}time"
        self._key = f"{prefix}partitionkey" if keyed else None
        self._first = str(uuid4())[:24]
        self._numbers = count()

    def of(self, items: Sequence[Item]) -> Iterator[tuple[Item, str, dict[str, str]]]:
        """Yield each item with a new id and its headers; all share the time of the call."""
        same = {**self._same, self._time: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
        for item in items:
            id = f"{self._first}{next(self._numbers):012x}"
            headers = {**same, self._id: id}
            if self._key is not None and item.key is not None:
                headers[self._key] = item.key
            yield item, id, headers
