"""Options in the query of a `sqlite://` URL, and the path of its file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from anymq.driver import URL, ConfigurationError, InvalidURL

_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """URL options of a `SqliteStore`."""

    synchronous: str = "FULL"
    """Level of forcing commits to disk: FULL survives a power cut, NORMAL and OFF survive only
    the death of the process (`PRAGMA synchronous`)."""

    busy_timeout: float = 5.0
    """Seconds to wait for other processes' transactions before a call fails."""

    def __post_init__(self) -> None:
        if self.synchronous.upper() not in _SYNCHRONOUS:
            raise ConfigurationError(
                f"synchronous={self.synchronous!r}: expected one of {', '.join(_SYNCHRONOUS)}"
            )
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not value > 0:
                raise ConfigurationError(f"{item.name} must be more than 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions(StoreOptions):
    """URL options of a `SqliteDriver`."""

    poll: float = 0.01
    """Seconds between two polls for commits of other processes, at most. Where the kernel reports
    writes (Linux), only while there are any."""

    retention: float = 7 * 24 * 3600.0
    """Seconds for which a message is kept, in topics declared without a retention of their own. It
    is deleted only once every group of its topic has settled it; without a group, never."""

    sweep: float = 60.0
    """Seconds between two sweeps, which delete messages by their retention."""


def database_path(url: URL) -> Path:
    """Return the absolute path of the file that `url` names; raises `InvalidURL`.

    Links are resolved, because all processes must find the same files beside the database.
    """
    return Path(file_name(url)).resolve()


def file_name(url: URL) -> str:
    """Return the path in `url` as it is written; raises `InvalidURL`."""
    if url.hosts or url.username is not None:
        raise InvalidURL(
            f"{url}: a file needs three slashes (sqlite:///relative.db) or four "
            "(sqlite:////absolute/path.db)"
        )
    name = url.path.removeprefix("/")
    if not name or name.endswith("/") or name == ":memory:":
        raise InvalidURL(
            "a sqlite URL names a file, for example sqlite:///app.db; "
            "for messages in memory only, use memory://"
        )
    if "\0" in name:
        raise InvalidURL("the path of a sqlite URL contains a NUL character")
    return name
