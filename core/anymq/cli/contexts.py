"""`Contexts`: named broker URLs in the user's config folder, without secrets.

A password in a context's URL is a reference, resolved when the context is used: `${NAME}` is an
environment variable, `${file:PATH}` the text of a file.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from ..errors import ConfigurationError
from ..url import URL, is_secret

REFERENCE = re.compile(r"\$\{(?:(file):)?([^{}]+)\}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Contexts:
    """The contexts of one user, and the one in use."""

    file: Path
    urls: Mapping[str, str]
    current: str | None = None

    @classmethod
    def read(cls) -> Self:
        """Return the contexts of this user; raises `ConfigurationError` for a damaged file."""
        from platformdirs import user_config_path

        file = user_config_path("anymq", appauthor=False) / "contexts.toml"
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(file, {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not TOML: {error}") from error
        urls = {name: _url_of(file, name, entry) for name, entry in _table(data).items()}
        return cls(file, urls, data.get("current"))

    def url(self, name: str) -> str:
        """Return the URL of context `name` with its references resolved."""
        if name not in self.urls:
            close = difflib.get_close_matches(name, self.urls, n=1)
            raise ConfigurationError(
                f"there is no context {name!r}"
                + (f"; did you mean {close[0]!r}?" if close else "")
                + ("" if self.urls else "; add one with: anymq context add NAME URL")
            )
        return REFERENCE.sub(lambda found: _resolved(found, name), self.urls[name])

    def current_url(self) -> str | None:
        """Return the URL of the context in use, or None."""
        return None if self.current is None else self.url(self.current)

    def added(self, name: str, url: str) -> Contexts:
        """Return these contexts with `name`; raises `ConfigurationError` for a literal secret."""
        if not NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot name a context: letters, digits, _ . -")
        check_references(url)
        return replace(self, urls={**self.urls, name: url}, current=self.current or name)

    def removed(self, name: str) -> Contexts:
        """Return these contexts without `name`; raises `ConfigurationError` if it is unknown."""
        self._check(name)
        left = {key: url for key, url in self.urls.items() if key != name}
        return replace(self, urls=left, current=None if self.current == name else self.current)

    def using(self, name: str) -> Contexts:
        """Return these contexts with `name` in use; raises `ConfigurationError` if unknown."""
        self._check(name)
        return replace(self, current=name)

    def write(self) -> None:
        """Replace the file at once, readable by this user alone."""
        import tomli_w

        data: dict[str, Any] = {} if self.current is None else {"current": self.current}
        data["contexts"] = {name: {"url": url} for name, url in sorted(self.urls.items())}
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, path = tempfile.mkstemp(dir=self.file.parent, prefix=".contexts-")  # mode 0600
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(tomli_w.dumps(data).encode())
        os.replace(path, self.file)

    def _check(self, name: str) -> None:
        if name not in self.urls:
            self.url(name)


def check_references(url: str) -> None:
    """Raise `ConfigurationError` if `url` is malformed or contains a secret itself."""
    without = REFERENCE.sub("reference", url)
    parsed = URL.parse(without)
    values: list[str | None] = [value for key, value in parsed.query.items() if is_secret(key)]
    values.append(parsed.username if parsed.password is None else parsed.password)  # or a token
    if any(value not in (None, "reference") for value in values):
        raise ConfigurationError(
            "a context holds no secret: write ${NAME} for an environment variable, or "
            "${file:PATH} for a file, in place of the password (in quotes, so that the shell "
            "leaves it alone)"
        )


def _table(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found = data.get("contexts", {})
    return found if isinstance(found, dict) else {}


def _url_of(file: Path, name: str, entry: Any) -> str:
    url = entry.get("url") if isinstance(entry, dict) else None
    if not isinstance(url, str):
        raise ConfigurationError(f"{file}: the context {name!r} has no url")
    return url


def _resolved(found: re.Match[str], context: str) -> str:
    kind, place = found[1], found[2]
    if kind == "file":
        try:
            value = Path(place).expanduser().read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"context {context!r}: {place}: {error.strerror}") from error
    else:
        if place not in os.environ:
            raise ConfigurationError(f"context {context!r}: the variable {place} is not set")
        value = os.environ[place]
    return quote(value, safe="")
