"""A Kafka server with passwords and TLS, on the program that the development servers run on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brokers.kafka import Kafka

USER, PASSWORD = "alice", "s3cr3t-and:odd@/?#"
LIMITED = "bob"
"""A user with the same password and no rights."""
HOST = "localhost"
PATIENCE = 60.0

_EXTRA = """
listeners=PLAINTEXT://127.0.0.1:{client},PASSWORD://127.0.0.1:{password},TLS://127.0.0.1:{tls},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{client},PASSWORD://{host}:{advertised},\
TLS://{host}:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
PASSWORD:SASL_PLAINTEXT,TLS:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
connection.failed.authentication.delay.ms=0
ssl.keystore.location={folder}/server.p12
ssl.keystore.type=PKCS12
ssl.keystore.password=changeit
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{user}
"""
_LOGIN = (
    "listener.name.{listener}.{mechanism}.sasl.jaas.config="
    "org.apache.kafka.common.security.{module} required {users};\n"
)


@dataclass(frozen=True)
class Secure:
    """The ports of its listeners, and the certificate to trust."""

    password: int
    tls: int
    ca: Path
    proxy: int
    """The port for a proxy to `password`, if clients are to be led to one."""
    tool: tuple[str, ...]
    """The command that changes the server's configuration."""

    def set_password(self, user: str, password: str) -> None:
        """Have SCRAM-SHA-256 accept `password` alone for `user`, from now on."""
        change = ["--add-config", f"SCRAM-SHA-256=[password={password}]"]
        entity = ["--entity-type", "users", "--entity-name", user]
        subprocess.run([*self.tool, "--alter", *change, *entity], check=True, capture_output=True)


@contextlib.contextmanager
def secure_server(folder: Path, *, proxied: bool = False) -> Iterator[Secure]:
    """Run one in `folder` until the end; with `proxied`, it leads clients to the port `proxy`."""
    kind = Kafka()
    program = kind.install()
    roles = (*kind.ports, "password", "tls")
    ports: dict[str, int] = dict(zip(roles, _free_ports(len(roles)), strict=True))
    launch = kind.launch(program, folder, ports, node="")
    properties = folder / "server.properties"
    lines = properties.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "listeners=" not in line and "security.protocol" not in line]
    kept.append(
        _EXTRA.format(
            **ports,
            host=HOST,
            folder=folder,
            user=USER,
            advertised=ports["proxy" if proxied else "password"],
        )
    )
    properties.write_text("".join(kept) + _logins())
    ca = _certificate(Path(program.path).with_name("keytool"), folder)
    assert launch.first is not None
    scrams = [
        argument
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for argument in ("--add-scram", f'{mechanism}=[name="{USER}",password="{PASSWORD}"]')
    ]
    with (folder / "log").open("wb") as log:
        subprocess.run([*launch.first, *scrams], check=True, stdout=log, stderr=log)
        with subprocess.Popen(launch.argv, stdout=log, stderr=log) as server:
            try:
                _until_it_listens(server, ports["tls"])
                java = launch.argv[: launch.argv.index("kafka.Kafka")]
                where = ["--bootstrap-server", f"127.0.0.1:{ports['client']}"]
                tool = (*java, "kafka.admin.ConfigCommand", *where)
                yield Secure(ports["password"], ports["tls"], ca, ports["proxy"], tool)
            finally:
                server.kill()


def _logins() -> str:
    plain = " ".join(f'user_{user}="{PASSWORD}"' for user in (USER, LIMITED))
    text = ""
    for listener in ("password", "tls"):
        text += _LOGIN.format(
            listener=listener, mechanism="plain", module="plain.PlainLoginModule", users=plain
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            text += _LOGIN.format(
                listener=listener,
                mechanism=mechanism,
                module="scram.ScramLoginModule",
                users="",
            )
    return text


def _certificate(keytool: Path, folder: Path) -> Path:
    ca = folder / "ca.pem"
    store = ["-keystore", str(folder / "server.p12"), "-storetype", "PKCS12"]
    store += ["-storepass", "changeit", "-alias", "server"]
    made = ["-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-dname", f"CN={HOST}"]
    made += ["-ext", f"san=dns:{HOST}", "-ext", "bc:c=ca:true", "-validity", "3650"]
    subprocess.run([str(keytool), *made, *store], check=True, capture_output=True)
    exported = ["-exportcert", "-rfc", "-file", str(ca)]
    subprocess.run([str(keytool), *exported, *store], check=True, capture_output=True)
    return ca


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert server.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server did not start in time"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
