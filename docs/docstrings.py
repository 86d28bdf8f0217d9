"""Read anymq's docstrings as Markdown: what mkdocstrings loads as an extension."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_LITERAL = re.compile(r"^( *)::$\n?", re.MULTILINE)
_LITERAL_BEHIND_TEXT = re.compile(r"::$", re.MULTILINE)


class Docstrings(Extension):
    """Turns `::` before an indented block, which Markdown does not know, into nothing or `:`."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _LITERAL.sub("", obj.docstring.value)
            obj.docstring.value = _LITERAL_BEHIND_TEXT.sub(":", text)
