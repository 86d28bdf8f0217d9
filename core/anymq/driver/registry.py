"""Registry of adapters and stores by URL scheme, loaded from entry points on first use."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, MissingDependency, UnknownScheme
from .base import Driver
from .store import Store

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

ADAPTERS = "anymq.adapters"
STORES = "anymq.stores"

_MEANT = {
    "amqp+ssl": "amqps",
    "amqp+tls": "amqps",
    "file": "sqlite",
    "inmemory": "memory",
    "jetstream": "nats",
    "kafka+sasl": "kafka",
    "kafka+tls": "kafka+ssl",
    "kafkas": "kafka+ssl",
    "mem": "memory",
    "nats+tls": "tls",
    "natss": "tls",
    "pyamqp": "amqp",
    "rabbit": "amqp",
    "rabbitmq": "amqp",
    "rabbitmqs": "amqps",
    "redis+ssl": "rediss",
    "redis+tls": "rediss",
    "redpanda": "kafka",
    "sqlite3": "sqlite",
    "valkey": "redis",
    "valkeys": "rediss",
}
"""The scheme that is meant by one that other tools use, or that is easily guessed."""

_registered: dict[tuple[str, str], str] = {}


def register(scheme: str, target: str, *, group: str = ADAPTERS) -> None:
    """Serve `scheme` by `target`, written `"module:Class"`, without installing a distribution.

    For tests and embedding; a distributed adapter declares an entry point instead. A registered
    target takes precedence over an installed one.
    """
    _registered[group, scheme.lower()] = target


def load_driver(scheme: str) -> type[Driver]:
    """Return the driver class for `scheme`.

    Raises `UnknownScheme`, with the list of installed schemes. Raises `MissingDependency`, with the
    pip command, if the adapter's client library is missing. Raises `ConfigurationError`, with the
    tested range, if its release lacks an attribute that the adapter uses.
    """
    driver, distribution = _load(scheme, ADAPTERS)
    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        raise ConfigurationError(f"the adapter for {scheme}:// is not a Driver: {driver!r}")
    _check(driver, distribution)
    return driver


def load_store(scheme: str) -> type[Store]:
    """Return the store class for `scheme`; raises as `load_driver` does."""
    store, distribution = _load(scheme, STORES)
    if not (isinstance(store, type) and issubclass(store, Store)):
        raise ConfigurationError(f"the store for {scheme}:// is not a Store: {store!r}")
    _check(store, distribution)
    return store


def schemes(group: str = ADAPTERS) -> list[str]:
    """Return the registered and installed URL schemes, sorted."""
    installed = {point.name for point in _entry_points(group=group)}
    return sorted(installed | {scheme for kind, scheme in _registered if kind == group})


def _check(found: type[Driver] | type[Store], distribution: str) -> None:
    if found.client_parts:
        from .client_parts import check_parts

        check_parts(found.client_parts, distribution=distribution)


def _load(scheme: str, group: str) -> tuple[Any, str]:
    """Return the class for `scheme`, and the name of its distribution."""
    target = _registered.get((group, scheme))
    if target is not None:
        module, _, name = target.partition(":")
        return getattr(import_module(module), name), module.partition(".")[0]
    points = _distinct(_entry_points(group=group, name=scheme))
    if not points:
        raise UnknownScheme(_unknown(scheme, group))
    if len(points) > 1:
        claims = ", ".join(f"{point.value} ({_distribution(point)})" for point in points)
        raise ConfigurationError(f"{scheme}:// is claimed more than once: {claims}")
    try:
        return points[0].load(), _distribution(points[0])
    except ImportError as error:
        client = error.name.partition(".")[0] if error.name else ""
        if client == points[0].module.partition(".")[0]:
            raise
        if client and find_spec(client) is not None:
            from .client_parts import unfit

            raise unfit(client, str(error), distribution=_distribution(points[0])) from error
        raise MissingDependency(
            f"{scheme}:// needs {error.name or 'a client library'}, which is not installed; "
            f"run: pip install '{_requirement(points[0])}'"
        ) from error


def _entry_points(group: str, name: str | None = None) -> EntryPoints:
    from importlib.metadata import entry_points

    found = entry_points(group=group)
    return found if name is None else found.select(name=name)


def _distinct(points: Any) -> list[EntryPoint]:
    # A distribution may be on sys.path twice (an editable install beside a wheel).
    return list({point.value: point for point in points}.values())


def _unknown(scheme: str, group: str) -> str:
    import difflib

    known = schemes(group)
    close = difflib.get_close_matches(scheme, [*known, *_MEANT], n=1, cutoff=0.6)
    meant = _MEANT.get(close[0], close[0]) if close else None
    kind = "an adapter" if group == ADAPTERS else "an idempotency store"
    text = (
        f"{scheme}:// has no adapter installed" if group == ADAPTERS else f"{scheme}:// is no store"
    )
    text += f"; the schemes with {kind} are {', '.join(f'{name}://' for name in known)}"
    return text + (f" (did you mean {meant}://?)" if meant in known else "")


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown distribution"


def _requirement(point: EntryPoint) -> str:
    distribution = _distribution(point)
    if distribution == "anymq":
        return f"anymq[{point.module.partition('.')[0].removeprefix('anymq_')}]"
    return distribution
