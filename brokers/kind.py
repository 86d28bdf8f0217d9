"""The interface of a kind of server: installation, configuration, start and readiness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from .debian import HOST_ROOT, Root
from .errors import BrokersError
from .tools import Version, dotted

Ports = Mapping[str, int]


@dataclass(frozen=True)
class Program:
    """An installed server program."""

    path: str
    version: Version
    root: Root = HOST_ROOT

    def __str__(self) -> str:
        return dotted(self.version)


@dataclass(frozen=True)
class Launch:
    """A command line and environment; `first` runs before it and must succeed."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    first: list[str] | None = None


class Kind(ABC):
    """One kind of server, without state of its own: all state is in the folders passed to it."""

    name: ClassVar[str]
    ports: ClassVar[Ports]
    """Ports of the instance `main` by role; clients connect to `client`."""
    words: ClassVar[tuple[str, ...]]
    """Texts, one of which is in the command line of a running server from its start."""
    grace: ClassVar[float] = 10.0
    """Seconds for a graceful stop before SIGKILL."""
    alarm: ClassVar[bool] = False
    """Whether `starve` and `relieve` can set off a disk or memory alarm."""
    patience: ClassVar[float] = 90.0
    """Seconds from start to readiness on a slow machine."""

    @abstractmethod
    def url(self, port: int) -> str:
        """Return the URL that clients connect to."""

    def route(self, ports: Ports) -> tuple[int, int]:
        """Return the port on which a proxy must listen (0: any) and the port it leads to.

        A server that advertises an address to clients must advertise that of the proxy.
        """
        return 0, ports["client"]

    def starve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        """Set off the disk or memory alarm of the running server."""
        raise BrokersError(f"{self.name} has no alarm that could be set off")

    def relieve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        """End the alarm set off by `starve`."""
        raise BrokersError(f"{self.name} has no alarm that could be set off")

    def control(self, program: Program, folder: Path, ports: Ports, *words: str, node: str) -> None:
        """Run the server's own command-line tool with `words`."""
        raise BrokersError(f"{self.name} has no tool of its own")

    @abstractmethod
    def install(self) -> Program:
        """Find or install the program; raise `NotInstallable` if that is impossible."""

    @abstractmethod
    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        """Write the configuration to `folder` and return the launch; data go to `data` below."""

    @abstractmethod
    def ready(self, port: int, timeout: float) -> None:
        """Return once the server has answered a real request; raise `NotReady` otherwise."""
