"""Templates in what the user types: `{{count}}`, `{{uuid}}` and `{{time}}`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cached_property
from uuid import uuid4

_FIELD = re.compile(r"\{\{(count|uuid|time)\}\}")


class Values:
    """The values for one message; a field has one value wherever it occurs in the message."""

    def __init__(self, count: int) -> None:
        self.count = str(count)

    @cached_property
    def uuid(self) -> str:
        """A new UUID."""
        return str(uuid4())

    @cached_property
    def time(self) -> str:
        """The time now, in UTC."""
        return datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def fill(self, text: str) -> str:
        """Return `text` with its fields replaced; other text in braces stays as it is."""
        if "{{" not in text:
            return text
        return _FIELD.sub(lambda found: str(getattr(self, found[1])), text)


def differs(text: str) -> bool:
    """Whether `text` is another one for each message."""
    return any(found[1] in ("count", "uuid") for found in _FIELD.finditer(text))
