"""The settings of a connection, from code, environment and file, and the origin of each.

`connect` and `App` use them. `effective` returns them for programs that show or check them.
docs/settings.md has the names, the files and the order of precedence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from .driver.base import Driver
from .driver.options import ConnectOptions, split_options
from .driver.registry import load_driver, schemes
from .errors import ConfigurationError, InvalidURL
from .settings_file import read_settings
from .url import URL, is_secret, masked
from .url_file import URLFile

PREFIX = "ANYMQ_"
TOOLS = ("ANYMQ_BENCH_", "ANYMQ_BROKERS_", "ANYMQ_FUZZ_", "ANYMQ_TEST_")
"""Prefixes of variables that are no settings of a connection, but of development tools."""
OTHERS = frozenset({"ANYMQ_CONTEXT"})
"""Variables of the command line, which are no settings of a connection."""
NO_URL = (
    "no broker URL: pass one to connect() or App(), set ANYMQ_URL (for example sqlite:///app.db) "
    "or ANYMQ_URL_FILE, or write url into anymq.toml"
)

# What Kubernetes and Docker set beside a service that is named anymq, or anymq-….
_SERVICE_LINK = re.compile(
    r"ANYMQ_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, its value with secrets masked, and the place that it is from.

    `origin` is `code`, the name of a variable, the path of a file, or `default`. That of an option
    in a URL is the origin of the URL.
    """

    name: str
    value: str | int | float | None
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a connection is opened with."""

    url: URL
    driver: type[Driver]
    options: ConnectOptions = field(repr=False)
    """The options that every backend has."""
    own: Any = field(repr=False)
    """The adapter's own options, an instance of `driver.options`."""
    items: tuple[Setting, ...] = ()
    """Every setting: the URL first, then the options by name."""

    def states(self, option: str) -> bool:
        """Whether code, environment or file states the value of `option`."""
        return any(item.name == option and item.origin != "default" for item in self.items)


class _Value(NamedTuple):
    text: str
    origin: str


class _Origin(NamedTuple):
    """Where the URL is from. The levels of precedence are 0 (file), 1 (environment), 2 (code)."""

    level: int
    url: str | URLFile
    name: str


def effective(url: str | None = None, *, isolated: bool = False) -> Settings:
    """Return the settings with which `connect(url)` connects.

    The order of precedence is code (`url` and the options in it), environment, file, default. With
    `isolated=True` environment and files are not read.

    Raises `ConfigurationError`, which names variable or file, for a name that is no setting, and
    for a value that is not valid.
    """
    path, in_file = (None, {}) if isolated else read_settings()
    in_environment = {} if isolated else _environment()
    origin = _origin(url, path, in_file, in_environment)
    if origin is None:
        raise ConfigurationError(NO_URL)
    found = origin.url.read() if isinstance(origin.url, URLFile) else _parsed(origin)
    driver = load_driver(found.scheme)
    levels: list[dict[str, _Value]] = [
        {key: _Value(text, str(path)) for key, text in in_file.items()},
        {key: _Value(text, PREFIX + key.upper()) for key, text in in_environment.items()},
        {},
    ]
    for level in levels:
        for key in ("url", "url_file"):
            level.pop(key, None)
        _keep_options(level, found.scheme, driver, explicit=bool(url))
    levels[origin.level] |= {key: _Value(v, origin.name) for key, v in found.query.items()}
    values = levels[0] | levels[1] | levels[2]
    options, own = _validated(found, driver, values, origin)
    items = [Setting("url", str(found), origin.name)]
    for name in sorted(_names(driver)):
        place = values[name].origin if name in values else "default"
        items.append(Setting(name, _shown(name, options, own), place))
    return Settings(found, driver, options, own, tuple(items))


def names_url() -> bool:
    """Whether environment or file names a URL; raises `ConfigurationError` if one does so twice."""
    path, in_file = read_settings()
    return _origin(None, path, in_file, _environment()) is not None


def _environment() -> dict[str, str]:
    """Return the variables by the name of the setting; an empty one counts as not set."""
    found: dict[str, str] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(PREFIX) or not text or variable in OTHERS:
            continue
        if variable.startswith(TOOLS) or _SERVICE_LINK.fullmatch(variable):
            continue
        if variable != variable.upper():
            raise ConfigurationError(f"{variable} is no setting: write {variable.upper()}")
        found[variable.removeprefix(PREFIX).lower()] = text
    return found


def _origin(
    url: str | None, path: str | None, in_file: Mapping[str, str], in_environment: Mapping[str, str]
) -> _Origin | None:
    """Return where the URL is from; None if nothing names one."""
    if url:
        return _Origin(2, url, "code")
    if "url" in in_environment and "url_file" in in_environment:
        raise ConfigurationError("both ANYMQ_URL and ANYMQ_URL_FILE are set: unset one of them")
    if text := in_environment.get("url"):
        return _Origin(1, text, "ANYMQ_URL")
    if text := in_environment.get("url_file"):
        return _Origin(1, URLFile(text), "ANYMQ_URL_FILE")
    if "url" in in_file and "url_file" in in_file:
        raise ConfigurationError(f"{path} has both url and url_file: remove one of them")
    if text := in_file.get("url"):
        return _Origin(0, text, str(path))
    if text := in_file.get("url_file"):
        return _Origin(0, URLFile(os.path.join(os.path.dirname(str(path)), text)), str(path))
    return None


def _parsed(origin: _Origin) -> URL:
    assert isinstance(origin.url, str)
    try:
        return URL.parse(origin.url)
    except InvalidURL as error:
        if origin.name == "code":
            raise
        raise InvalidURL(f"{origin.name}: {error}") from None


def _names(driver: type[Driver]) -> set[str]:
    """Return the names of the options that a URL of `driver` accepts."""
    own = {item.name for item in fields(driver.options)} if driver.options is not None else set()
    return own | {item.name for item in fields(ConnectOptions)}


def _keep_options(
    level: dict[str, _Value], scheme: str, driver: type[Driver], *, explicit: bool
) -> None:
    """Keep the options that `driver` has in `level`; raise for the other names.

    With an `explicit` URL the options of other backends are passed over: environment and file may
    be about another broker of this process.
    """
    known = _names(driver)
    for key in [key for key in level if key not in known]:
        others = _schemes_with(key)
        if not (explicit and others):
            raise ConfigurationError(_unknown(key, level[key].origin, scheme, known, others))
        del level[key]
    for key, value in level.items():
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value.text):
            raise ConfigurationError(f"{value.origin}: control characters in {key!r}")


def _unknown(key: str, origin: str, scheme: str, known: set[str], others: list[str]) -> str:
    import difflib

    variable = origin.startswith(PREFIX)
    place = origin if variable else f"{key!r} in {origin}"
    if others:
        backends = ", ".join(f"{each}://" for each in others)
        return f"{place} is no setting for {scheme}://, but for {backends}"
    valid = sorted({*known, "url", "url_file"})
    names = [PREFIX + name.upper() for name in valid] if variable else valid
    close = difflib.get_close_matches(origin if variable else key, names, n=1)
    return (
        f"{place} is no setting"
        + (f" (did you mean {close[0]}?)" if close else "")
        + f"; the settings for {scheme}:// are {', '.join(names)}"
    )


def _schemes_with(option: str) -> list[str]:
    """Return the schemes of the installed backends that have `option`."""
    found: list[str] = []
    for scheme in schemes():
        try:
            driver = load_driver(scheme)
        except ConfigurationError:
            continue  # Its client library is not installed.
        if option in _names(driver):
            found.append(scheme)
    return found


def _validated(
    url: URL, driver: type[Driver], values: Mapping[str, _Value], origin: _Origin
) -> tuple[ConnectOptions, Any]:
    query = {key: value.text for key, value in values.items()}
    try:
        return split_options(replace(url, query=query), driver.options)
    except InvalidURL as error:
        text = str(error)
        named = [key for key in values if re.search(rf"\b{re.escape(key)}\b", text)]
        places = dict.fromkeys(values[key].origin for key in named or values)
        if set(places) == {"code"}:
            raise
        raise InvalidURL(f"{', '.join(places)}: {text}") from None


def _shown(name: str, options: ConnectOptions, own: Any) -> str | int | float | None:
    value = getattr(options, name) if hasattr(options, name) else getattr(own, name)
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    if is_secret(name):
        return "***"
    return masked(text) if "://" in text else text
