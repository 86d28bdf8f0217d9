"""RabbitMQ 4 from Debian packages, with its own port mapper (epmd)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from . import debian, ready, state
from .kind import Kind, Launch, Ports, Program
from .ports import HOST
from .tools import CLEAN_ENVIRONMENT, output, run, version, which

_LEAST = (4,)
_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"

# epmd runs in the server's session, so that it ends with this server only.
_START = 'epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" & exec "$0"'

_CONFIG = """\
listeners.tcp.1 = {host}:{client}
disk_free_limit.absolute = 50MB
log.console = true
log.file = false
"""
# A dead-letter worker that starts before its exchanges retries after this time. The default of
# 3 minutes would block delayed messages after a crash.
_ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n"
# Few schedulers, for a small machine; distribution port on loopback only.
_ERLANG = "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}"


class RabbitMQ(Kind):
    """The RabbitMQ server, with user guest. Confirmed messages in durable queues survive a kill.

    RabbitMQ 4.0 loses a quorum queue with its confirmed messages if the server is killed within
    about 0.5 s of the declaration; the queue then refuses messages.
    """

    name = "rabbitmq"
    ports: ClassVar[Ports] = {"client": 15673, "dist": 15674, "epmd": 15675}
    words = ("rabbit",)
    grace = 20.0
    alarm = True

    def url(self, port: int) -> str:
        return f"amqp://guest:guest@{HOST}:{port}/"

    def install(self) -> Program:
        if found := _on_host():
            return found
        root = debian.provide("rabbitmq-server", _LEAST)
        return Program(_SCRIPT, debian.installed(root, "rabbitmq-server"), root)

    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = folder / "rabbitmq.conf"
        plugins = folder / "enabled_plugins"
        advanced = folder / "advanced.config"
        state.write(plugins, "[].\n")
        state.write(advanced, _ADVANCED)
        state.write(config, _CONFIG.format(host=HOST, **ports))
        argv = ["/bin/sh", "-c", _START, program.path]
        env = {
            "HOME": str(data),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_NODENAME": f"{node}@localhost",
            "RABBITMQ_DIST_PORT": str(ports["dist"]),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(advanced),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_MNESIA_BASE": str(data),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            # Schedulers bound to cores starve if several servers share a small machine.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            # Makes the script execute the Erlang VM in place.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        return Launch(program.root.command(argv, shared=folder), env)

    def ready(self, port: int, timeout: float) -> None:
        ready.rabbitmq(port, timeout)

    def starve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        self.control(program, folder, ports, "set_disk_free_limit", "900GB", node=node)

    def relieve(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None:
        self.control(program, folder, ports, "set_disk_free_limit", "50MB", node=node)

    def control(self, program: Program, folder: Path, ports: Ports, *words: str, node: str) -> None:
        env = {
            **CLEAN_ENVIRONMENT,
            "HOME": str(folder / "data"),
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "RABBITMQ_NODENAME": f"{node}@localhost",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        argv = [str(Path(program.path).with_name("rabbitmqctl")), *words]
        command = program.root.command(argv, shared=folder)
        run(command, what=words[0], log=folder / "control.log", env=env, cwd=folder)


def _on_host() -> Program | None:
    # Debian's /usr/sbin/rabbitmq-server changes the user, so bypass it.
    path = _SCRIPT if Path(_SCRIPT).exists() else which("rabbitmq-server")
    if path is None:
        return None
    found = version(os.path.realpath(path)) or version(output([path + "ctl", "version"]))
    return Program(path, found) if found >= _LEAST else None
