"""One server of one instance, wherever it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from . import docker, state
from .errors import BrokersError, NotInstallable
from .kafka import Kafka
from .kind import Kind
from .native import Native
from .nats import NATS
from .ports import HOST
from .rabbitmq import RabbitMQ
from .redis import Redis
from .status import Status

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Kafka(), RabbitMQ(), NATS(), Redis())}
NAMES = tuple(KINDS)

T = TypeVar("T")


class Engine(Protocol):
    """What a server runs on: processes of this machine, or containers."""

    def up(self) -> bool: ...
    def down(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def restart(self) -> None: ...
    def reset(self) -> None: ...
    def status(self) -> Status: ...
    def logs(self, n: int) -> str: ...
    def port(self) -> int: ...
    def ports(self) -> Mapping[str, int]: ...
    def starve(self) -> None: ...
    def relieve(self) -> None: ...


class Server:
    """A handle; making one does nothing. Calls block, and are safe from threads and processes."""

    host = HOST

    def __init__(self, name: str, instance: str | None = None) -> None:
        if name not in KINDS:
            raise BrokersError(f"no server is named {name!r}: there are {', '.join(NAMES)}")
        self.name = name
        self.instance = state.checked(state.default_instance() if instance is None else instance)

    def __repr__(self) -> str:
        return f"Server({self.name!r}, instance={self.instance!r})"

    @property
    def port(self) -> int:
        """The port that clients connect to; an instance other than `main` keeps its own."""
        return self._engine.port()

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return KINDS[self.name].url(self.port)

    def url_at(self, port: int) -> str:
        """The URL of the same server at another port, where a proxy listens."""
        return KINDS[self.name].url(port)

    def route(self) -> tuple[int, int]:
        """The port that a proxy must listen on (0: any), and the one that it must lead to."""
        return KINDS[self.name].route(self._engine.ports())

    def up(self) -> bool:
        """Return once it answers; True if this call started it. A paused one is resumed."""
        return self._engine.up()

    def down(self) -> None:
        """End it gracefully, by force after a bounded wait. Its data stay."""
        self._engine.down()

    def kill(self) -> None:
        """SIGKILL the whole server. Its data stay as they are; `up` starts on them."""
        self._engine.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._engine.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._engine.resume()

    @property
    def alarm(self) -> bool:
        """Whether it can run out of disk or memory by an alarm of its own, and go on afterwards."""
        return KINDS[self.name].alarm and not docker.answers()

    def starve(self) -> None:
        """Let it run out of disk or memory, by its own alarm; what cannot do so raises."""
        self._engine.starve()

    def relieve(self) -> None:
        """Give it room again."""
        self._engine.relieve()

    def restart(self) -> None:
        """A graceful end, and a start on the same data and port."""
        self._engine.restart()

    def reset(self) -> None:
        """Start empty: end it, wipe its data, start it on the same port."""
        self._engine.reset()

    def status(self) -> Status:
        """What it is doing now. Never starts or installs anything."""
        return self._engine.status()

    def logs(self, n: int = 50) -> str:
        """The last n lines of its log."""
        return self._engine.logs(n)

    @property
    def _engine(self) -> Engine:
        kind = KINDS[self.name]
        if docker.answers():
            return docker.Container(kind, self.instance)
        if sys.platform != "linux":
            raise NotInstallable("without Docker the servers run on Linux only: start Docker")
        return Native(kind, self.instance)


def server(name: str, instance: str | None = None) -> Server:
    """The handle of one server; of `main` or $ANYMQ_BROKERS_INSTANCE unless named."""
    return Server(name, instance)


def up(names: Sequence[str] = NAMES, instance: str | None = None) -> list[str]:
    """Start servers side by side; the names of those that this call started.

    One that fails does not keep the others from coming up; the error names each that failed.
    """
    servers = [Server(name, instance) for name in names]
    return [name for name, started in together(servers, Server.up).items() if started]


def down(names: Sequence[str] = NAMES, instance: str | None = None) -> None:
    """End servers side by side."""
    together([Server(name, instance) for name in names], Server.down)


def together(servers: Sequence[Server], action: Callable[[Server], T]) -> dict[str, T]:
    """Do the same to all at once. Every one is tried; then the failures are raised as one."""
    if not servers:
        return {}
    results: dict[str, T] = {}
    failures: dict[str, BrokersError] = {}
    with ThreadPoolExecutor(len(servers)) as pool:
        pending = {one.name: pool.submit(action, one) for one in servers}
        for name, future in pending.items():
            try:
                results[name] = future.result()
            except BrokersError as error:
                failures[name] = error
            except OSError as error:
                failures[name] = BrokersError(str(error))
    if failures:
        missing = all(isinstance(error, NotInstallable) for error in failures.values())
        text = "\n".join(f"{name}: {error}" for name, error in failures.items())
        raise (NotInstallable if missing else BrokersError)(text)
    return results
