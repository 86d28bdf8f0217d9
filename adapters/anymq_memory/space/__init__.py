"""`Space`: the topics that all brokers of one URL share."""

from __future__ import annotations

from typing import ClassVar

from .log import TopicLog


class Space:
    """The topics of one name. It exists as long as a broker uses it."""

    _shared: ClassVar[dict[str, Space]] = {}

    def __init__(self) -> None:
        self.logs: dict[str, TopicLog] = {}
        """Topics by native name."""
        self._users = 0
        self._name = ""

    @classmethod
    def join(cls, name: str) -> Space:
        """Return the space called `name`, or a private one for the empty name."""
        space = cls._shared.setdefault(name, cls()) if name else cls()
        space._name = name
        space._users += 1
        return space

    def leave(self) -> None:
        """Count one broker less. A named space without brokers is forgotten."""
        self._users -= 1
        if self._users == 0 and self._name:
            self._shared.pop(self._name, None)
