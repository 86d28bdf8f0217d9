"""`LazyHeaders`: for adapters; headers that stay as they came until somebody asks for one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping
from typing import Any, TypeVar, overload

from .specs import CONTROL

T = TypeVar("T")


class LazyHeaders(Mapping[str, str]):
    """Headers by name, read all at once when first asked for.

    The engine asks every message for headers of its own, to find that there are none: `plain`
    answers that without reading.
    """

    __slots__ = ("_found",)

    _found: dict[str, str] | None
    """None until they were read; a subclass begins with that."""

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Whether none of the engine's own is there; False also where a quick look cannot tell."""

    @abstractmethod
    def read(self) -> dict[str, str]:
        """Read them; called once."""

    @property
    def all(self) -> dict[str, str]:
        """All of them, read."""
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
