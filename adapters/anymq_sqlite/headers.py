"""Headers as rows hold them: a JSON object, written in parts and read when somebody asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from anymq.driver import CONTROL
from anymq.unread import UnreadHeaders

_CONTROL = f'"{CONTROL}'
# Envelopes that are remembered; a process uses a handful at a time.
_MOST = 512
# By identity. The mapping is kept, too, lest another one gets its number.
_known: dict[int, tuple[Mapping[str, str], str]] = {}


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


class Headers(UnreadHeaders):
    """The headers in `text`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = None

    @property
    def plain(self) -> bool:
        return _CONTROL not in self._text and "\\" not in self._text

    def read(self) -> dict[str, str]:
        return load(self._text)
