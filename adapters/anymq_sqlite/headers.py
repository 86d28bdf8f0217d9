"""Headers as rows hold them: a JSON object, written in parts and read when somebody asks."""

from __future__ import annotations

import json
from collections.abc import ItemsView, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeVar, overload

_CONTROL = "anymq-"
# Envelopes that are remembered; a process uses a handful at a time.
_MOST = 512
# By identity. The mapping is kept, too, lest another one gets its number.
_known: dict[int, tuple[Mapping[str, str], str]] = {}

T = TypeVar("T")


def dump(common: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return both as one JSON object; `common` is encoded once."""
    known = _known.get(id(common)) or _learn(common)
    items = [f"{quoted(name)}: {quoted(value)}" for name, value in own.items()]
    if known[1]:
        items.insert(0, known[1])
    return f"{{{', '.join(items)}}}"


def _learn(common: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    if len(_known) >= _MOST:
        _known.clear()
    learnt = _known[id(common)] = common, json.dumps(dict(common))[1:-1]
    return learnt


def load(text: str) -> dict[str, str]:
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


class Headers(Mapping[str, str]):
    """The headers in `text`. Whether it has one of anymq's own takes no reading of the others."""

    __slots__ = ("_loaded", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._loaded: dict[str, str] | None = None

    def loaded(self) -> dict[str, str]:
        """Return all of them."""
        found = self._loaded
        if found is None:
            found = self._loaded = load(self._text)
        return found

    def __getitem__(self, name: str) -> str:
        return self.loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded())

    def __len__(self) -> int:
        return len(self.loaded())

    def __contains__(self, name: object) -> bool:
        return name in self.loaded()

    def __repr__(self) -> str:
        return repr(self.loaded())

    def items(self) -> ItemsView[str, str]:
        return self.loaded().items()

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str | T, /) -> str | T: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        if self._loaded is None and key.startswith(_CONTROL):
            text = self._text
            if '"anymq-' not in text and "\\" not in text:
                return default
        return self.loaded().get(key, default)
