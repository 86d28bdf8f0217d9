"""NATS with JetStream on file storage, built from its Go module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from . import apt, debian, ready, state
from .errors import BrokersError, NotInstallable, say
from .kind import Kind, Launch, Ports, Program
from .ports import HOST
from .tools import output, run, version, which

RELEASE = (2, 15, 2)
_MODULE = "github.com/nats-io/nats-server/v2@v2.15.2"
_LEAST = (2, 12)
# The first Go that can download the toolchain a module requires.
_LEAST_GO = (1, 21)

_CONFIG = """\
listen: "{host}:{client}"
server_name: "{node}"
jetstream {{ store_dir: "{data}" }}
"""


class NATS(Kind):
    """The NATS server. A stored message survives a kill; a power cut loses unsynced messages."""

    name = "nats"
    ports: ClassVar[Ports] = {"client": 14222}
    words = ("nats-server",)
    patience = 60.0

    def url(self, port: int) -> str:
        return f"nats://{HOST}:{port}"

    def install(self) -> Program:
        for path in (which("nats-server"), str(_binary())):
            if found := _usable(path):
                return found
        with state.locked(state.installing("nats"), "nats") as lock:
            if found := _usable(str(_binary())):
                return found
            _build(lock=lock)
        if found := _usable(str(_binary())):
            return found
        raise BrokersError(f"{_binary()} was built but does not run")

    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = folder / "nats.conf"
        state.write(config, _CONFIG.format(host=HOST, node=node, data=data, **ports))
        return Launch([program.path, "--config", str(config)])

    def ready(self, port: int, timeout: float) -> None:
        ready.nats(port, timeout)


def _binary() -> Path:
    return state.home() / f"nats-{'.'.join(map(str, RELEASE))}" / "nats-server"


def _usable(path: str | None) -> Program | None:
    found = version(output([path, "--version"])) if path else ()
    return Program(path, found) if path and found >= _LEAST else None


def _build(*, lock: int) -> None:
    """Build the server with the host's Go or Debian's, which downloads a newer one if needed."""
    work = _binary().parent / "build"
    state.wipe(work)
    work.mkdir(parents=True)
    env = {
        **os.environ,
        "GOPATH": str(work / "path"),
        "GOBIN": str(work / "bin"),
        "GOCACHE": str(work / "cache"),
        "GOTOOLCHAIN": "auto",
        "CGO_ENABLED": "0",
    }
    root, go = debian.HOST_ROOT, _go()
    if go is None:
        root, go = debian.tree("go", "golang-go", "ca-certificates"), "/usr/bin/go"
        env |= {"HOME": str(work), "TMPDIR": str(work), "SSL_CERT_FILE": _trust(root)}
    say(f"nats: building {_MODULE}")
    command = [go, "install", "-modcacherw", "-trimpath", _MODULE]
    log = state.home() / "logs" / "nats.log"
    inside = root.command(command, shared=work)
    run(inside, what="building nats-server", log=log, env=env, lock=lock)
    (work / "bin" / "nats-server").replace(_binary())
    state.wipe(work)
    debian.discard(root)


def _go() -> str | None:
    """Return a new enough Go on the host, installed from Debian if possible, or None."""
    go = which("go")
    if go and version(output([go, "version"])) >= _LEAST_GO:
        return go
    if apt.available():
        apt.update()
        if apt.candidate("golang-go") >= _LEAST_GO:
            apt.install("golang-go")
            return which("go")
        return None
    raise NotInstallable(
        "nats-server 2.12 or newer is not on PATH and there is no Go 1.21 or newer to build it: "
        f"install Go, then: go install {_MODULE}"
    )


def _trust(root: debian.Root) -> str:
    """Copy the host's trusted certificates into a tree; return their path inside."""
    inside = "/etc/ssl/certs/ca-certificates.crt"
    bundle = Path(os.environ.get("SSL_CERT_FILE", inside))
    if not bundle.exists():
        bundle = root.path(inside)
    own = sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt"))
    root.path(inside).write_text("\n".join(file.read_text() for file in (bundle, *own)))
    return inside
