"""Redis 8 from Debian packages, with an append-only file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from . import debian, ready, state
from .kind import Kind, Launch, Ports, Program
from .ports import HOST
from .tools import output, version, which

_LEAST = (8,)

_CONFIG = """\
bind {host}
port {client}
dir "{data}"
daemonize no
appendonly yes
appendfsync everysec
save ""
# Keeps the environment readable, by which the process is found without its record.
set-proc-title no
"""


class Redis(Kind):
    """The Redis server. A write survives a kill; a power cut loses up to 1 s (everysec)."""

    name = "redis"
    ports: ClassVar[Ports] = {"client": 16379}
    words = ("redis-server",)
    patience = 60.0
    alarm = True

    def url(self, port: int) -> str:
        return f"redis://{HOST}:{port}/0"

    def install(self) -> Program:
        if found := _on_host():
            return found
        root = debian.provide("redis-server", _LEAST)
        return Program("/usr/bin/redis-server", debian.installed(root, "redis-server"), root)

    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = folder / "redis.conf"
        state.write(config, _CONFIG.format(host=HOST, data=data, **ports))
        argv = [program.path, str(config)]
        return Launch(program.root.command(argv, shared=folder))

    def ready(self, port: int, timeout: float) -> None:
        ready.redis(port, timeout)

    def starve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        ready.redis_config(ports["client"], "maxmemory", "1")

    def relieve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        ready.redis_config(ports["client"], "maxmemory", "0")


def _on_host() -> Program | None:
    path = which("redis-server")
    if path is None:
        return None
    found = version(output([path, "--version"]))
    return Program(path, found) if found >= _LEAST else None
