"""Only processes started here are ever signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from brokers import Server, State, process
from brokers.process import Process


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def identity(pid: int) -> Process:
    found = process.find(pid)
    assert found is not None
    return found


def pretend(server: Server, states: Path, found: Process) -> None:
    file = states / server.instance / server.name / "pid"
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"process": asdict(found), "ports": {"client": 1}, "version": "8"}
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("stale", ["start time", "boot", "command line"])
def test_a_stale_pid_file_never_leads_to_a_signal(
    stale: str, redis: Server, states: Path, stranger: subprocess.Popen[bytes]
) -> None:
    found = identity(stranger.pid)
    recorded = {
        "start time": replace(found, started=1),
        "boot": replace(found, boot="another"),
        "command line": found,
    }[stale]
    pretend(redis, states, recorded)
    assert redis.status().state is State.STOPPED
    redis.kill()
    pretend(redis, states, recorded)
    redis.down()
    assert found.running()
    assert stranger.poll() is None


def test_a_recycled_pid_is_another_process(stranger: subprocess.Popen[bytes]) -> None:
    before = replace(identity(stranger.pid), started=1)
    assert not before.running()
    assert not before.send(signal.SIGKILL)
    assert stranger.poll() is None


def test_a_spawned_process_is_detached(tmp_path: Path) -> None:
    env = {"PATH": os.defpath, process.MARK: str(tmp_path)}
    script = "echo said; sleep 600 & sleep 600"
    leader = process.spawn(["/bin/sh", "-c", script], env, log=tmp_path / "log")
    try:
        assert os.getsid(leader.pid) == leader.pid != os.getsid(0)
        while (tmp_path / "log").read_text() != "said\n":
            pass
        while len(process.family(leader, "no such mark")) != 3:  # until the shell has forked
            pass
        leader.send(signal.SIGKILL)
        assert process.gone([leader], 5)
        orphans = process.family(leader, str(tmp_path))
        assert len(orphans) == 2
    finally:
        for one in process.family(leader, str(tmp_path)):
            one.send(signal.SIGKILL)
    assert process.gone(orphans, 5)


def test_children_of_others_are_not_waited_for() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "exit 7"]) as child:
        while process.find(child.pid) is not None:
            process.family(None, "no such mark")
        assert child.wait() == 7
