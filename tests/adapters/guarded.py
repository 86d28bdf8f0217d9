"""Real servers that demand a password, and can be told another one while they run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import redis

import anymq
from anymq.testing.harness import random_name
from brokers import server
from brokers.nats import NATS
from tests.adapters.kafka.secure import HOST, PASSWORD, USER, Secure, secure_server

PATIENCE = 60.0


class Guarded(ABC):
    """A server that accepts one password of one user."""

    scheme: str
    port: int
    """The port of the server."""
    listen = 0
    """The port on which a proxy to it must listen; 0 for any."""
    host = "127.0.0.1"
    refusal: type[anymq.BrokerError] = anymq.AccessDenied
    """The error of a publish while the password is refused."""

    def __init__(self) -> None:
        self.user = f"app {random_name()}"
        self.password = "the 1st p@ss:100%/?#"
        self._numbers = itertools.count(2)

    def url(self, port: int, query: str = "") -> str:
        """Return the URL, with the password of now, for a proxy at `port`."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{self.scheme}://{login}@{self.host}:{port}?{query}"

    def rotate(self) -> None:
        """Have the server accept another password, and no longer the one before."""
        self.password = f"n3w p@ss:%41/?#{next(self._numbers)}"
        self.accept()

    @abstractmethod
    def accept(self) -> None:
        """Have the server accept the password of now alone."""


class GuardedRedis(Guarded):
    scheme = "redis"

    def __init__(self) -> None:
        super().__init__()
        self.user = self.user.replace(" ", "-")  # Redis takes no blank in a name.
        main = server("redis")
        main.up()
        self.port = urlsplit(main.url).port or 0
        self._admin: Any = redis.Redis(port=self.port)
        self.accept()

    def accept(self) -> None:
        words = ["on", "resetpass", f">{self.password}", "~*", "&*", "+@all"]
        self._admin.execute_command("ACL", "SETUSER", self.user, *words)

    def close(self) -> None:
        self._admin.execute_command("ACL", "DELUSER", self.user)
        self._admin.close()


class GuardedRabbitMQ(Guarded):
    scheme = "amqp"

    def __init__(self) -> None:
        super().__init__()
        self._server = server("rabbitmq")
        self._server.up()
        self.port = self._server.port
        self._server.control("add_user", self.user, self.password)
        self._server.control("set_permissions", self.user, ".*", ".*", ".*")

    def accept(self) -> None:
        self._server.control("change_password", self.user, self.password)

    def close(self) -> None:
        self._server.control("delete_user", self.user)


class GuardedKafka(Guarded):
    scheme = "kafka"
    refusal = anymq.PublishTimeout
    host = HOST

    def __init__(self, secure: Secure) -> None:
        super().__init__()
        self.user, self.password = USER, PASSWORD
        self.port, self.listen = secure.password, secure.proxy
        self._secure = secure

    def url(self, port: int, query: str = "") -> str:
        return super().url(port, f"sasl_mechanism=SCRAM-SHA-256&{query}".rstrip("&"))

    def accept(self) -> None:
        self._secure.set_password(self.user, self.password)


class GuardedNATS(Guarded):
    scheme = "nats"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        program = NATS().install()
        with socket.socket() as free:
            free.bind((self.host, 0))
            self.port = free.getsockname()[1]
        self._config, self._log = folder / "nats.conf", folder / "nats.log"
        self._data = folder / "data"
        self._write()
        words = [program.path, "--config", str(self._config), "--log", str(self._log)]
        self._process = subprocess.Popen(words)
        self._until("Server is ready")

    def accept(self) -> None:
        reloads = self._log.read_text().count("Reloaded server configuration")
        self._write()
        self._process.send_signal(signal.SIGHUP)
        self._until("Reloaded server configuration", reloads)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _write(self) -> None:
        login = f"user: {json.dumps(self.user)}, password: {json.dumps(self.password)}"
        text = (
            f'listen: "{self.host}:{self.port}"\n'
            f'jetstream {{ store_dir: "{self._data}" }}\n'
            f"authorization {{ users: [ {{ {login} }} ] }}\n"
        )
        whole = self._config.with_suffix(".next")
        whole.write_text(text)
        whole.replace(self._config)

    def _until(self, line: str, times: int = 0) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(FileNotFoundError):
                if self._log.read_text().count(line) > times:
                    return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"{line!r} is not in {self._log.read_text()}"
            os.sched_yield()


@contextlib.contextmanager
def guarded(backend: str, folder: Path) -> Iterator[Guarded]:
    """Run or borrow the server `backend`."""
    if backend == "kafka":
        with secure_server(folder, proxied=True) as secure:
            yield GuardedKafka(secure)
        return
    made: GuardedRedis | GuardedRabbitMQ | GuardedNATS
    if backend == "redis":
        made = GuardedRedis()
    else:
        made = GuardedRabbitMQ() if backend == "rabbitmq" else GuardedNATS(folder)
    with contextlib.closing(made):
        yield made
