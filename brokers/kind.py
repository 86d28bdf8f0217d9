"""What one kind of server must tell: how it is installed, configured, started and asked."""

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
    """How a program is started in a state folder; `first` runs before it and must succeed."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    first: list[str] | None = None


class Kind(ABC):
    """One kind of server. Stateless: all that lasts is in the folders it is given."""

    name: ClassVar[str]
    ports: ClassVar[Ports]
    """The ports of the instance `main` by role; `client` is the one that clients use."""
    words: ClassVar[tuple[str, ...]]
    """One of these is in the command line of a running server, from its first moment on."""
    grace: ClassVar[float] = 10.0
    """Seconds for a graceful end before SIGKILL."""
    alarm: ClassVar[bool] = False
    """Whether it can be made to run out of disk or memory while it runs: `starve`, `relieve`."""
    patience: ClassVar[float] = 90.0
    """Seconds from start to ready on a slow machine."""

    @abstractmethod
    def url(self, port: int) -> str:
        """The URL that clients connect to."""

    def route(self, ports: Ports) -> tuple[int, int]:
        """Where a proxy must listen (0: anywhere) and where it must lead to.

        A server that tells its clients where to connect must tell them the proxy's place.
        """
        return 0, ports["client"]

    def starve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        """Make the running server believe that its disk or memory is full."""
        raise BrokersError(f"{self.name} has no alarm that could be set off")

    def relieve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        """End what `starve` began."""
        raise BrokersError(f"{self.name} has no alarm that could be set off")

    @abstractmethod
    def install(self) -> Program:
        """Find or install the program; quick when it is there. Raises NotInstallable."""

    @abstractmethod
    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        """Write the configuration into the folder and say how to start; data go to `data`."""

    @abstractmethod
    def ready(self, port: int, timeout: float) -> None:
        """Return once a real request was answered, else raise NotReady."""
