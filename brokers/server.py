"""One server of one instance, on either engine."""

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
    """An engine that runs servers: processes of this machine, or containers."""

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
    def control(self, *words: str) -> None: ...


class Server:
    """A handle of one server. Calls block, and are safe across threads and processes."""

    host = HOST

    def __init__(self, name: str, instance: str | None = None) -> None:
        if name not in KINDS:
            raise BrokersError(f"unknown server {name!r}: there are {', '.join(NAMES)}")
        self.name = name
        self.instance = state.checked(state.default_instance() if instance is None else instance)

    def __repr__(self) -> str:
        return f"Server({self.name!r}, instance={self.instance!r})"

    @property
    def port(self) -> int:
        """Port that clients connect to; constant for an instance."""
        return self._engine.port()

    @property
    def url(self) -> str:
        """URL that clients connect to."""
        return KINDS[self.name].url(self.port)

    def url_at(self, port: int) -> str:
        """Return the URL of this server at another port, such as a proxy's."""
        return KINDS[self.name].url(port)

    def route(self) -> tuple[int, int]:
        """Return the port on which a proxy must listen (0: any) and the port it leads to."""
        return KINDS[self.name].route(self._engine.ports())

    def up(self) -> bool:
        """Start or resume the server and wait until it answers; return whether it was started."""
        return self._engine.up()

    def down(self) -> None:
        """Stop gracefully, or kill after a bounded wait. Data are kept."""
        self._engine.down()

    def kill(self) -> None:
        """SIGKILL all processes of the server. Data are kept for the next `up`."""
        self._engine.kill()

    def pause(self) -> None:
        """SIGSTOP the server: connections stay open and nothing answers."""
        self._engine.pause()

    def resume(self) -> None:
        """SIGCONT the server."""
        self._engine.resume()

    @property
    def alarm(self) -> bool:
        """Whether `starve` and `relieve` are supported."""
        return KINDS[self.name].alarm and not docker.answers()

    def starve(self) -> None:
        """Set off its disk or memory alarm; raise if it has none."""
        self._engine.starve()

    def relieve(self) -> None:
        """End the alarm."""
        self._engine.relieve()

    def control(self, *words: str) -> None:
        """Run the server's own tool, `rabbitmqctl`; raise if it has none or runs in a container."""
        self._engine.control(*words)

    def restart(self) -> None:
        """Stop gracefully and start with the same data and port."""
        self._engine.restart()

    def reset(self) -> None:
        """Kill the server, delete its data, and start it on the same port."""
        self._engine.reset()

    def status(self) -> Status:
        """Return its current status, without starting or installing anything."""
        return self._engine.status()

    def logs(self, n: int = 50) -> str:
        """Return the last `n` lines of its log."""
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
    """Return the handle of a server; the default instance is $ANYMQ_BROKERS_INSTANCE or `main`."""
    return Server(name, instance)


def up(names: Sequence[str] = NAMES, instance: str | None = None) -> list[str]:
    """Start servers concurrently; return the names of those that this call started.

    A failure does not prevent the others from starting; the exception names all that failed.
    """
    servers = [Server(name, instance) for name in names]
    return [name for name, started in together(servers, Server.up).items() if started]


def down(names: Sequence[str] = NAMES, instance: str | None = None) -> None:
    """Stop servers concurrently."""
    together([Server(name, instance) for name in names], Server.down)


def together(servers: Sequence[Server], action: Callable[[Server], T]) -> dict[str, T]:
    """Apply `action` to all servers concurrently; raise all failures as one exception."""
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
