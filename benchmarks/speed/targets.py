"""Targets of a run: servers of the instance `bench`, a SQLite file, memory, or given URLs."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import psutil

from anymq import URL
from anymq.driver import Driver
from brokers import NAMES, BrokersError, Server, down, server

from .contestants import BACKENDS
from .contestants.anymq import STORE_VARIABLE
from .results import Backend, LeftOut

INSTANCE = "bench"
OWN = ("sqlite", "memory")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A backend at a URL. `server` is None unless the run started the server itself."""

    backend: str
    url: str
    server: Server | None = None

    @property
    def shared(self) -> bool:
        """Whether more than one process can use it."""
        return self.backend != "memory"

    def described(self) -> Backend:
        """Return its description for the report, taken before the first message."""
        driver = driver_of(self.url)
        items = driver.capabilities.items()
        return Backend(
            name=self.backend,
            version=self._version(),
            where=str(URL.parse(self.url)),
            durability=driver.capabilities.durability,
            capabilities={name: (one.level.value, one.note) for name, one in items},
            idle_memory=self.memory(),
        )

    def cpu(self) -> float | None:
        """Return the CPU seconds used by the server's processes so far, None if unknown."""
        used = [process.cpu_times() for process in self._processes()]
        return sum(times.user + times.system for times in used) if used else None

    def memory(self) -> int | None:
        """Return the resident memory of the server's processes in bytes, None if unknown."""
        used = [process.memory_info().rss for process in self._processes()]
        return sum(used) if used else None

    def _version(self) -> str:
        if self.backend == "sqlite":
            return sqlite3.sqlite_version
        return "" if self.server is None else self.server.status().version

    def _processes(self) -> list[psutil.Process]:
        pid = None if self.server is None else self.server.status().pid
        try:
            found = [] if pid is None else [psutil.Process(pid)]
            return [*found, *(child for one in found for child in one.children(recursive=True))]
        except psutil.Error:
            return []


@contextmanager
def targets(
    backends: Sequence[str], urls: Sequence[str], folder: Path
) -> Iterator[tuple[list[Target], list[LeftOut]]]:
    """Start the servers of `backends`, yield all usable targets, and stop the servers on exit.

    Also yields the servers that could not be started, with the reason.
    """
    found = [Target(backend=backend_of(url), url=url) for url in urls]
    found += [Target(backend=one, url=_embedded(one, folder)) for one in backends if one in OWN]
    servers = [server(backend, INSTANCE) for backend in backends if backend in NAMES]
    left_out: list[LeftOut] = []
    try:
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            for one, failure in zip(servers, pool.map(_start, servers), strict=True):
                if failure:
                    left_out.append(LeftOut(what=one.name, why=failure))
                else:
                    found.append(Target(backend=one.name, url=one.url, server=one))
        _name_the_store(found)
        yield sorted(found, key=lambda target: BACKENDS.index(target.backend)), left_out
    finally:
        down([one.name for one in servers], INSTANCE)


def _start(one: Server) -> str:
    """Start a server without data; return the reason if that failed, else an empty string."""
    try:
        one.reset()
    except (BrokersError, OSError) as error:
        return str(error)
    return ""


def backend_of(url: str) -> str:
    """Return the name of the backend that serves `url`."""
    backend = driver_of(url).__module__.partition(".")[0].removeprefix("anymq_")
    if backend not in BACKENDS:
        raise SystemExit(f"no contestant supports {URL.parse(url)}")
    return backend


def driver_of(url: str) -> type[Driver]:
    """Return the driver class installed for the scheme of `url`."""
    parsed = URL.parse(url)
    for point in entry_points(group="anymq.adapters", name=parsed.scheme):
        driver: type[Driver] = point.load()
        return driver
    raise SystemExit(f"no installed adapter supports {parsed}")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose backends: `--backend` and `--url`."""
    parser.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="backend to measure on a server of its own; repeatable (all)",
    )
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        help="existing broker to measure instead; its test topics are deleted; repeatable",
    )


def backends_of(options: argparse.Namespace) -> Sequence[str]:
    """Return the backends chosen by `--backend`; all by default, none if only URLs are given."""
    found: Sequence[str] = options.backend or ([] if options.url else BACKENDS)
    return found


def _embedded(backend: str, folder: Path) -> str:
    return f"sqlite:///{folder}/bench.db" if backend == "sqlite" else "memory://bench"


def _name_the_store(found: Iterable[Target]) -> None:
    for target in found:
        if target.backend == "redis":
            os.environ.setdefault(STORE_VARIABLE, target.url)
