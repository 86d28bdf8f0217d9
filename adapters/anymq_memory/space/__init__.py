"""The state that brokers of one name share: topics by native name."""

from __future__ import annotations

from typing import ClassVar

from .log import Log


class Space:
    """The topics of one name; lives while a broker uses it."""

    _shared: ClassVar[dict[str, Space]] = {}

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
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
        """One broker less; the last one takes a named space with it."""
        self._users -= 1
        if self._users == 0 and self._name:
            self._shared.pop(self._name, None)
