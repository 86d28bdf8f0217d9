"""The servers as containers of a Docker engine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cache
from pathlib import Path

from . import ports, state
from .errors import BrokersError, StartFailed, say
from .kind import Kind
from .ready import NotReady
from .status import State, Status
from .tools import which

_FILE = Path(__file__).with_name("compose.yaml")
_STATES = {"running": State.RUNNING, "paused": State.PAUSED, "restarting": State.SILENT}


@cache
def answers() -> bool:
    """Return whether a Docker engine answers and has compose.

    The environment variable ANYMQ_BROKERS_ENGINE, `native` or `docker`, overrides the answer.
    """
    if chosen := os.environ.get("ANYMQ_BROKERS_ENGINE"):
        if chosen not in ("docker", "native"):
            raise BrokersError(
                f"ANYMQ_BROKERS_ENGINE={chosen} is invalid: set it to docker or native"
            )
        return chosen == "docker"
    docker = which("docker")
    if docker is None:
        return False
    for question in (["info"], ["compose", "version"]):
        try:
            subprocess.run([docker, *question], capture_output=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return False
    return True


class Container:
    """A server as one service of the compose project `anymq-<instance>`."""

    def __init__(self, kind: Kind, instance: str) -> None:
        self._kind = kind
        self._instance = instance

    def up(self) -> bool:
        with self._locked():
            found = self._state()
            if found is State.PAUSED:
                self._compose("unpause")
            self._compose("up", "--detach", "--quiet-pull")
            self._await()
            return found is State.STOPPED

    def down(self) -> None:
        with self._locked():
            self._compose("rm", "--stop", "--force")

    def kill(self) -> None:
        with self._locked():
            if self._state() is not State.STOPPED:
                self._compose("kill")

    def pause(self) -> None:
        with self._locked():
            self._compose("pause")

    def resume(self) -> None:
        with self._locked():
            self._compose("unpause")

    def restart(self) -> None:
        with self._locked():
            self._compose("rm", "--stop", "--force")
            self._compose("up", "--detach", "--quiet-pull")
            self._await()

    def reset(self) -> None:
        with self._locked():
            if self._state() is not State.STOPPED:
                self._compose("kill")
            self._compose("rm", "--force")
            self._docker("volume", "rm", "--force", f"{self._project}_{self._kind.name}")
            self._compose("up", "--detach", "--quiet-pull")
            self._await()

    def status(self) -> Status:
        found = self._inspect()
        now = self._state()
        if now is State.RUNNING and self._problem(2.0):
            now = State.SILENT
        return Status(
            name=self._kind.name,
            instance=self._instance,
            state=now,
            version=str(found.get("Image", "")).rpartition(":")[2],
            pid=None,
            url=self._kind.url(self.port()),
            uptime=None if now is State.STOPPED else _age(str(found.get("CreatedAt", ""))),
            folder=self._folder,
        )

    def logs(self, n: int) -> str:
        return self._compose("logs", "--no-log-prefix", "--tail", str(n)).rstrip("\n")

    def port(self) -> int:
        return self.ports()["client"]

    def ports(self) -> Mapping[str, int]:
        return ports.resolve(self._kind.name, self._instance, self._kind.ports)

    def starve(self) -> None:
        raise BrokersError("a container cannot be filled: set ANYMQ_BROKERS_ENGINE=native")

    def relieve(self) -> None:
        self.starve()

    def control(self, *words: str) -> None:
        raise BrokersError("a container's tool is not run: set ANYMQ_BROKERS_ENGINE=native")

    @property
    def _folder(self) -> Path:
        return state.states() / self._instance / self._kind.name

    @property
    def _project(self) -> str:
        # Compose project names are lower case.
        return f"anymq-{self._instance.lower()}"

    def _locked(self) -> AbstractContextManager[int]:
        return state.locked(self._folder / "lock", self._kind.name)

    def _inspect(self) -> dict[str, object]:
        listing = self._compose("ps", "--all", "--format", "json").strip()
        if not listing:
            return {}
        # One object per line; older versions print one array.
        first = json.loads(listing.splitlines()[0])
        found = first[0] if isinstance(first, list) and first else first
        return dict(found) if isinstance(found, dict) else {}

    def _state(self) -> State:
        return _STATES.get(str(self._inspect().get("State", "")), State.STOPPED)

    def _problem(self, timeout: float) -> str:
        try:
            self._kind.ready(self.port(), timeout)
        except NotReady as error:
            return str(error)
        return ""

    def _await(self) -> None:
        deadline = time.monotonic() + self._kind.patience
        while problem := self._problem(5.0):
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{self._kind.name} did not become ready: {problem}\n{self.logs(15)}"
                )
            time.sleep(0.2)

    def _compose(self, command: str, *options: str) -> str:
        service = self._kind.name
        if command == "up":
            say(f"{service}: starting a container")
        return self._docker(
            "compose", "-p", self._project, "-f", str(_FILE), command, *options, service
        )

    def _docker(self, *arguments: str) -> str:
        name = self._kind.name
        environment = {
            **os.environ,
            **{ports.variable(name, role): str(port) for role, port in self.ports().items()},
        }
        done = subprocess.run(
            [which("docker") or "docker", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokersError(f"{name}: docker {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout


def _age(created: str) -> float | None:
    # Like 2026-11-21 10:05:00 +0000 UTC
    try:
        begun = datetime.strptime(" ".join(created.split()[:3]), "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None
    return max(0.0, time.time() - begun.timestamp())
