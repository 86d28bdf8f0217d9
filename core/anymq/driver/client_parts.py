"""The private parts of a client library that an adapter uses: checked before they are relied on.

A new release of a client may move a private attribute without notice. An adapter lists those it
uses, and one that is missing is an error at `connect`, not a message that stands still later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import unwrap
from types import CodeType

from ..errors import ConfigurationError

Parts = Mapping[type, Sequence[str]]
"""Classes of a client library, each with the names of the attributes that its objects must have."""


def check_parts(parts: Parts, *, distribution: str) -> None:
    """Raise `ConfigurationError` unless each class of `parts` defines its names.

    The error has the installed release and the range that `distribution` (the adapter's) asks for.
    """
    for owner, names in parts.items():
        if missing := sorted(set(names).difference(_defined(owner))):
            what = f"{owner.__qualname__} has no {', '.join(missing)}"
            raise unfit(owner.__module__.partition(".")[0], what, distribution=distribution)


def unfit(module: str, what: str, *, distribution: str) -> ConfigurationError:
    """Return the error for an installed client library, imported as `module`, that does not fit."""
    from importlib.metadata import packages_distributions  # slow, and for this error only

    client = next(iter(packages_distributions().get(module, ())), module)
    tested = _required(distribution, client)
    command = f"; run: pip install '{tested}'" if tested else ""
    return ConfigurationError(
        f"{client} {_version(client)} does not fit this release of {distribution}: {what}{command}"
    )


def _defined(owner: type) -> set[str]:
    """Return the attributes of the class, and those that its methods name: set on objects."""
    return {name for base in owner.__mro__ for name in _names(base)}


def _names(base: type) -> Iterator[str]:
    yield from vars(base)
    yield from base.__annotations__ if "__annotations__" in vars(base) else ()
    for value in vars(base).values():
        function = getattr(value, "fget", None) or value
        code = getattr(unwrap(function) if callable(function) else None, "__code__", None)
        if isinstance(code, CodeType):
            yield from code.co_names


def _version(client: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(client)
    except PackageNotFoundError:
        return "(of unknown version)"


def _required(distribution: str, client: str) -> str | None:
    """Return the requirement that `distribution` has for `client`, as pip takes it."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires(distribution) or ()
    except PackageNotFoundError:
        return None
    for line in lines:
        requirement = line.partition(";")[0].strip()
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if name.lower().replace("_", "-") == client.lower().replace("_", "-"):
            return requirement
    return None
