"""A server that runs as a process of this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from . import ports, record, state, tools
from .errors import BrokersError, StartFailed, say
from .kind import Kind, Ports, Program
from .process import MARK, Process, family, gone, spawn
from .ready import NotReady
from .record import Record
from .status import State, Status

_LOG_LIMIT = 20 * 1024 * 1024

PORT_RELEASE = 10.0
"""Seconds for the port of a killed server to become free."""


class Control(Protocol):
    """An action on a running server: `Kind.starve` or `Kind.relieve`."""

    def __call__(self, program: Program, folder: Path, ports: Ports, *, node: str) -> None: ...


class Native:
    """One server of one instance. Every change of its state holds its lock."""

    def __init__(self, kind: Kind, instance: str) -> None:
        self._kind = kind
        self._title = kind.name if instance == state.MAIN else f"{kind.name} ({instance})"
        self._instance = instance

    def up(self) -> bool:
        with self._locked():
            return self._start()

    def down(self) -> None:
        with self._locked():
            self._stop()

    def kill(self) -> None:
        with self._locked():
            self._kill()

    def pause(self) -> None:
        with self._locked():
            leader = self._signal(signal.SIGSTOP)
            # The kernel delivers the signal asynchronously.
            deadline = time.monotonic() + 2.0
            while leader.running() and not leader.stopped() and time.monotonic() < deadline:
                time.sleep(0.005)

    def resume(self) -> None:
        with self._locked():
            self._signal(signal.SIGCONT)

    def restart(self) -> None:
        with self._locked():
            self._stop()
            self._start()

    def reset(self) -> None:
        with self._locked():
            self._kill()
            state.wipe(self._folder / "data")
            self._start()

    def starve(self) -> None:
        with self._locked():
            self._control(self._kind.starve)

    def relieve(self) -> None:
        with self._locked():
            self._control(self._kind.relieve)

    def control(self, *words: str) -> None:
        def action(program: Program, folder: Path, ports: Ports, *, node: str) -> None:
            self._kind.control(program, folder, ports, *words, node=node)

        with self._locked():
            self._control(action)

    def status(self) -> Status:
        known = self._record()
        leader = self._leader()
        port = self.port()
        return Status(
            name=self._kind.name,
            instance=self._instance,
            state=self._state(leader, port),
            version=known.version if known else "",
            pid=leader.pid if leader else None,
            url=self._kind.url(port),
            uptime=leader.age() if leader else None,
            folder=self._folder,
        )

    def logs(self, n: int) -> str:
        return tools.tail(self._folder / "log", n)

    def port(self) -> int:
        return self.ports()["client"]

    def ports(self) -> Mapping[str, int]:
        known = self._record()
        if known is not None and self._leader() is not None:
            return known.ports
        return self._ports()

    def _control(self, action: Control) -> None:
        if self._leader() is None:
            raise BrokersError(f"{self._title} is not running")
        action(self._kind.install(), self._folder, self.ports(), node=self._node)

    @property
    def _node(self) -> str:
        return f"anymq-{self._instance}"

    @property
    def _folder(self) -> Path:
        return state.states() / self._instance / self._kind.name

    def _locked(self) -> AbstractContextManager[int]:
        return state.locked(self._folder / "lock", self._title)

    def _ports(self) -> dict[str, int]:
        return ports.resolve(self._kind.name, self._instance, self._kind.ports)

    def _record(self) -> Record | None:
        return record.read(self._folder / "pid")

    def _leader(self) -> Process | None:
        """Return the recorded process if it runs and has the command line of the server."""
        known = self._record()
        if known is None or not known.process.running():
            return None
        line = " ".join(known.process.words())
        return known.process if any(word in line for word in self._kind.words) else None

    def _family(self) -> list[Process]:
        return family(self._leader(), self._mark())

    def _mark(self) -> str:
        """Return the value that marks the environment of the server's processes.

        It includes the inode, because another root may have a folder of the same path.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        found = self._folder.stat()
        return f"{self._folder}:{found.st_dev}:{found.st_ino}"

    def _state(self, leader: Process | None, port: int) -> State:
        if leader is None:
            return State.STOPPED
        if leader.stopped():
            return State.PAUSED
        try:
            self._kind.ready(port, 2.0)
        except NotReady:
            return State.SILENT
        return State.RUNNING

    def _start(self) -> bool:
        leader = self._leader()
        if leader is not None:
            if leader.stopped():
                self._signal(signal.SIGCONT)
            self._await(leader, self.port())
            return False
        self._kill()
        program = self._kind.install()
        chosen = self._ports()
        self._check(chosen)
        say(f"{self._title}: starting {program} on port {chosen['client']}")
        begun = time.monotonic()
        leader = self._spawn(program, chosen)
        try:
            self._await(leader, chosen["client"])
        except StartFailed:
            self._kill()
            raise
        say(f"{self._title}: ready after {time.monotonic() - begun:.1f} s")
        return True

    def _spawn(self, program: Program, chosen: dict[str, int]) -> Process:
        folder = self._folder
        log = folder / "log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(folder / "log.old")
        launch = self._kind.launch(program, folder, chosen, node=self._node)
        env = {
            **tools.CLEAN_ENVIRONMENT,
            "HOME": str(folder),
            MARK: self._mark(),
            **launch.env,
        }
        if launch.first:
            what = f"preparing {self._title}"
            tools.run(launch.first, what=what, log=folder / "first.log", env=env, cwd=folder)
        leader = spawn(["/usr/bin/env", "-C", str(folder), *launch.argv], env, log=log)
        Record(leader, chosen, str(program)).write(folder / "pid")
        return leader

    def _await(self, leader: Process, port: int) -> None:
        deadline = time.monotonic() + self._kind.patience
        problem = "it never answered"
        while time.monotonic() < deadline:
            if not leader.running():
                problem = "it ended"
                break
            try:
                self._kind.ready(port, 5.0)
            except NotReady as error:
                problem = str(error)
                time.sleep(0.05)
            else:
                return
        raise StartFailed(
            f"{self._title} did not become ready: {problem}\n{self.logs(15)}\n"
            f"whole log: {self._folder / 'log'}"
        )

    def _stop(self) -> None:
        leader = self._leader()
        if leader is not None:
            say(f"{self._title}: stopping")
            leader.send(signal.SIGTERM)
            # A stopped process handles the signal only after SIGCONT.
            for one in self._family():
                one.send(signal.SIGCONT)
            if not gone([leader], self._kind.grace):
                say(f"{self._title}: still running after {self._kind.grace:.0f} s; killing it")
        self._kill()

    def _kill(self) -> None:
        deadline = time.monotonic() + 10.0
        while members := self._family():
            for one in members:
                one.send(signal.SIGKILL)
            if not gone(members, 5.0) and time.monotonic() > deadline:
                raise BrokersError(f"{self._title}: processes survive SIGKILL: {members}")
        (self._folder / "pid").unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> Process:
        leader = self._leader()
        if leader is None:
            raise BrokersError(f"{self._title} is not running")
        for one in self._family():
            one.send(number)
        return leader

    def _check(self, chosen: dict[str, int]) -> None:
        # A killed process with many threads releases its ports some time after it appears dead,
        # because its first thread ends before the others.
        until = time.monotonic() + PORT_RELEASE
        for role, port in chosen.items():
            while not (free := ports.free(port)) and time.monotonic() < until:
                time.sleep(0.1)
            if not free:
                name = ports.variable(self._kind.name, role)
                hint = f"; set {name}" if self._instance == state.MAIN else ""
                raise StartFailed(f"{self._title}: port {port} is taken by another program{hint}")
