"""The file with settings: `anymq.toml`, or `[tool.anymq]` in `pyproject.toml`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from .errors import ConfigurationError

OWN, SHARED = "anymq.toml", "pyproject.toml"


def read_settings() -> tuple[str | None, Mapping[str, str]]:
    """Return the path of the file and its settings, as text by name; None if there is no file.

    The working directory is searched, then its parents. The nearest directory with a file counts,
    and in it `anymq.toml` before `pyproject.toml`. Raises `ConfigurationError` for a file that
    cannot be used.
    """
    for directory in _directories():
        for name in (OWN, SHARED):
            path = os.path.join(directory, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found = _settings(path, status.st_mtime_ns, status.st_size)
            if found is not None:
                return path, found
    return None, {}


def _directories() -> Iterator[str]:
    """Yield the working directory and its parents, without parents that everybody may write to.

    Anybody could put a file with a URL into those, as /tmp.
    """
    try:
        directory = os.getcwd()
    except OSError:
        return  # It was deleted.
    yield directory
    while (parent := os.path.dirname(directory)) != directory:
        directory = parent
        if os.name != "posix" or not os.stat(directory).st_mode & stat.S_IWOTH:
            yield directory


@lru_cache(maxsize=8)
def _settings(path: str, changed: int, size: int) -> Mapping[str, str] | None:
    """Return the settings in the file; None if it is a `pyproject.toml` without any.

    `changed` and `size` have a file that was changed read again.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{path} cannot be read: {reason}") from None
    own = os.path.basename(path) == OWN
    if not own and "anymq" not in text:
        return None
    import tomllib

    try:
        values: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    if not own:
        tool = values.get("tool")
        if not isinstance(tool, dict) or "anymq" not in tool:
            return None
        values = tool["anymq"]
        if not isinstance(values, dict):
            raise ConfigurationError(f"{path}: tool.anymq must be a table")
    return MappingProxyType({key: _text(path, key, value) for key, value in values.items()})


def _text(path: str, key: str, value: object) -> str:
    """Return a value as it would be written in a URL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    # Not quoted: it may hold a secret.
    raise ConfigurationError(f"{path}: {key} must be a string, a number or a boolean")
