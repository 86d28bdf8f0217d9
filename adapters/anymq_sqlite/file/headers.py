"""Headers as rows hold them: a JSON object, written in parts and read when somebody asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from anymq.driver import CONTROL, LazyHeaders, SharedHeaders

_CONTROL = f'"{CONTROL}'


def dump(common: SharedHeaders, own: Mapping[str, str]) -> str:
    """Return both as one JSON object; `common` is encoded once."""
    items = [f"{quoted(name)}: {quoted(value)}" for name, value in own.items()]
    if shared := common.encoded(_shared):
        items.insert(0, shared)
    return f"{{{', '.join(items)}}}"


def _shared(headers: Mapping[str, str]) -> str:
    return json.dumps(dict(headers))[1:-1]


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


class Headers(LazyHeaders):
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
