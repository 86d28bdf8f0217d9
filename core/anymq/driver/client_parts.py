"""Check of the private attributes that an adapter uses of its client library.

A new release of a client may remove a private attribute without notice. An adapter lists those it
uses, so a missing one is an error at `connect` and not a stalled message later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import unwrap
from types import CodeType

from ..errors import ConfigurationError

Parts = Mapping[type, Sequence[str]]
"""Classes of a client library, each with the names of attributes that its objects must have."""


def check_parts(parts: Parts, *, distribution: str) -> None:
    """Raise `ConfigurationError` unless each class of `parts` defines its names.

    The error names the installed release, and the range that the adapter's `distribution` requires.
    """
    for owner, names in parts.items():
        if missing := sorted(set(names).difference(_defined(owner))):
            reason = f"{owner.__qualname__} has no {', '.join(missing)}"
            raise unfit(owner.__module__.partition(".")[0], reason, distribution=distribution)


def unfit(module: str, reason: str, *, distribution: str) -> ConfigurationError:
    """Return the error for an incompatible release of the client library imported as `module`."""
    from importlib.metadata import packages_distributions  # slow, and for this error only

    client = next(iter(packages_distributions().get(module, ())), module)
    tested = _required(distribution, client)
    command = f"; run: pip install '{tested}'" if tested else ""
    return ConfigurationError(
        f"{client} {_version(client)} does not fit this release of {distribution}: "
        f"{reason}{command}"
    )


def _defined(owner: type) -> set[str]:
    """Return the attributes of the class, and those that its methods set or read on objects."""
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
    """Return the requirement of `distribution` for `client`, in pip's notation."""
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
