"""`LazyHeaders`: for adapters, headers that are parsed on first access."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping
from typing import Any, TypeVar, overload

from .specs import CONTROL

T = TypeVar("T")


class LazyHeaders(Mapping[str, str]):
    """Headers by name, all parsed on the first access to one of them.

    The core looks up its own headers in every message, and usually finds none. `plain` answers that
    without parsing.
    """

    __slots__ = ("_found",)

    _found: dict[str, str] | None
    """The parsed headers; None before. A subclass initialises it with None."""

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Whether no header of anymq is present; False if that is unknown without parsing."""

    @abstractmethod
    def read(self) -> dict[str, str]:
        """Parse all headers. Called once."""

    @property
    def all(self) -> dict[str, str]:
        """All headers, parsed."""
        found = self._found
        if found is None:
            found = self._found = self.read()
        return found

    def __getitem__(self, name: str) -> str:
        return self.all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __contains__(self, name: object) -> bool:
        return name in self.all

    def __repr__(self) -> str:
        return repr(self.all)

    def items(self) -> ItemsView[str, str]:
        return self.all.items()

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str | T, /) -> str | T: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        if self._found is None and key.startswith(CONTROL) and self.plain:
            return default
        return self.all.get(key, default)
