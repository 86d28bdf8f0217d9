"""`URLFile`: a URL that is the content of a secret file, read again for each connection."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from .errors import ConfigurationError
from .logs import logger
from .url import URL

log = logger("anymq")

MAX_BYTES = 64 * 1024
"""The most bytes that a file with a URL may have."""

KEPT = "the credentials read before remain in use"


class URLFile:
    """A file whose text is a URL, such as a mounted secret.

    Its credentials are read again for each connection to the broker, so a rotated password needs no
    restart. Everything else in the URL stays as it was read first.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._login: tuple[str | None, str | None] = (None, None)
        """User and password as they were read last."""
        self._problem: str | None = None
        """The problem that was logged last, until the file is in order again."""

    def read(self) -> URL:
        """Return the URL in the file; its `current` reads the file again.

        Raises `ConfigurationError`, which shows none of the text.
        """
        try:
            url = self._parsed()
        except ConfigurationError as error:
            raise type(error)(f"the file of the URL, {self.path}: {error}") from None
        self._login = (url.username, url.password)
        return replace(url, renew=self._renew)

    def _parsed(self) -> URL:
        try:
            # A pipe would block the process until another one writes to it.
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise ConfigurationError("it is no regular file")
            with self.path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            text = content.decode("utf-8-sig").strip()
        except OSError as error:
            raise ConfigurationError(
                f"it cannot be read: {error.strerror or type(error).__name__}"
            ) from None
        except UnicodeDecodeError:
            raise ConfigurationError("it is not UTF-8 text") from None
        if not text or len(content) > MAX_BYTES:
            raise ConfigurationError("it is too large for a URL" if text else "it is empty")
        return URL.parse(text)

    def _renew(self, url: URL) -> URL:
        """Return `url` with the credentials in the file, or those before if it is not usable."""
        problem = self._read_login(url)
        if problem is not None and problem != self._problem:
            log.warning("the file of the URL, %s: %s", self.path, problem)
        self._problem = problem
        return replace(url, username=self._login[0], password=self._login[1])

    def _read_login(self, url: URL) -> str | None:
        """Read the credentials again; return what an operator should know, or None."""
        try:
            found = self._parsed()
        except ConfigurationError as error:
            return f"{error}; {KEPT}"
        if reason := _unusable(url, found):
            return f"{reason}; {KEPT}"
        self._login = (found.username, found.password)
        return _ignored(url, found)


def _unusable(url: URL, found: URL) -> str | None:
    """Return why the credentials of `found` are not for the broker of `url`; None if they are."""
    if found.scheme != url.scheme or (url.hosts and not _names(url) & _names(found)):
        return "the URL is that of another broker now, which takes effect after a restart only"
    if (found.username is None, found.password is None) != (
        url.username is None,
        url.password is None,
    ):
        return "a user or a password was added to the URL or removed from it"
    return None


def _names(url: URL) -> set[str]:
    return {name for name, _ in url.hosts}


def _ignored(url: URL, found: URL) -> str | None:
    """Return what else differs in `found`; None if nothing does."""
    parts = ("hosts", "path", "query")
    changed = [part for part in parts if getattr(url, part) != getattr(found, part)]
    if not changed:
        return None
    return f"the URL's {' and '.join(changed)} changed, which takes effect after a restart only"
