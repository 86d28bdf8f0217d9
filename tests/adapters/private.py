"""A server of one test alone, with a configuration of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers.errors import NotInstallable
from brokers.kind import Kind
from brokers.ready import NotReady

PATIENCE = 90.0
FILES = {"redis": "redis.conf", "nats": "nats.conf", "rabbitmq": "rabbitmq.conf"}


@contextlib.contextmanager
def private_server(
    kind: Kind, folder: Path, configure: Callable[[str], str], *, ready: bool = True
) -> Iterator[int]:
    """Run a server in `folder` until the end; yield its port.

    `configure` gets the text of the configuration that the development servers have, and returns
    the one to use. With `ready` it must answer a client without credentials.
    """
    try:
        program = kind.install()
    except NotInstallable as error:
        pytest.skip(str(error))
    ports = dict(zip(kind.ports, free_ports(len(kind.ports)), strict=True))
    launch = kind.launch(program, folder, ports, node=f"anymq-{ports['client']}")
    config = folder / FILES[kind.name]
    config.write_text(configure(config.read_text()))
    port = ports["client"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            launch.argv,
            env={**os.environ, **launch.env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(server, lambda: kind.ready(port, 1.0) if ready else _listens(port), folder)
            yield port
        finally:
            # Its own session, so that what it has started ends as well.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _listens(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 1):
        return


def _wait(server: subprocess.Popen[bytes], answers: Callable[[], None], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        text = (folder / "log").read_text(errors="replace")[-2000:]
        assert server.poll() is None, f"the server has ended: {text}"
        assert time.monotonic() < deadline, f"the server did not start in time: {text}"
        with contextlib.suppress(OSError, NotReady):
            answers()
            return
        time.sleep(0.1)
