"""Start, stop, kill, pause and reset of real servers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path
from uuid import UUID

import pytest

import brokers
from brokers import BrokersError, Server, StartFailed, State, kafka, native
from brokers.kafka import Kafka
from brokers.process import MARK

ROOT = Path(__file__).resolve().parents[2]


def marked(instance: str) -> list[str]:
    """Return the names of processes whose environment is marked with the instance."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            lines = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            if any(line.startswith(MARK) and f"/{instance}/" in line for line in lines):
                found.append((entry / "comm").read_text().strip())
    return found


def ask(server: Server, command: str, timeout: float = 5.0) -> str:
    """Send an inline command to Redis; return the last line of its answer."""
    with socket.create_connection((server.host, server.port), timeout) as sock:
        sock.settimeout(timeout)
        sock.sendall(f"{command}\r\n".encode())
        return sock.recv(65_536).decode().strip().splitlines()[-1]


@pytest.mark.redis
@pytest.mark.nats
def test_up_starts_once(instance: str) -> None:
    names = ("nats", "redis")
    assert brokers.up(names, instance) == ["nats", "redis"]
    before = [brokers.server(name, instance).status() for name in names]
    assert all(one.running for one in before)
    assert brokers.up(names, instance) == []
    after = [brokers.server(name, instance).status() for name in names]
    assert [one.pid for one in before] == [one.pid for one in after]
    brokers.down(names, instance)
    assert not marked(instance)


@pytest.mark.redis
@pytest.mark.nats
def test_two_processes_at_once_start_one_server(instance: str) -> None:
    command = [sys.executable, "-m", "brokers", "up", "nats", "redis", "--instance", instance]
    both = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = "".join(one.communicate(timeout=300)[1] for one in both)
    assert [one.returncode for one in both] == [0, 0], said
    assert said.count(f"redis ({instance}): starting") == 1, said
    assert said.count(f"nats ({instance}): starting") == 1, said
    # The servers outlive the processes that started them.
    assert brokers.server("redis", instance).status().running
    assert brokers.server("nats", instance).status().running
    assert sorted(marked(instance)) == ["nats-server", "redis-server"]


@pytest.mark.redis
def test_kill_keeps_data_and_port(redis: Server) -> None:
    assert redis.up()
    port = redis.port
    ask(redis, "SET k kept")
    ask(redis, "WAITAOF 1 0 5000")
    redis.kill()
    assert redis.status().state is State.STOPPED
    redis.kill()
    assert redis.up()
    assert redis.port == port
    assert ask(redis, "GET k") == "kept"


@pytest.mark.redis
def test_restart_keeps_data_and_reset_does_not(redis: Server) -> None:
    redis.up()
    pid, port = redis.status().pid, redis.port
    ask(redis, "SET k kept")
    redis.restart()
    assert redis.status().pid != pid
    assert ask(redis, "GET k") == "kept"
    redis.reset()
    assert ask(redis, "DBSIZE") == ":0"
    assert redis.port == port


@pytest.mark.redis
def test_pause_stops_answers_and_keeps_the_process(redis: Server) -> None:
    redis.up()
    pid = redis.status().pid
    redis.pause()
    assert redis.status().state is State.PAUSED
    with pytest.raises(TimeoutError):
        ask(redis, "PING", timeout=0.3)
    redis.resume()
    assert ask(redis, "PING") == "+PONG"
    assert redis.status().pid == pid


@pytest.mark.redis
def test_up_resumes_and_down_ends_a_paused_server(redis: Server) -> None:
    redis.up()
    redis.pause()
    assert not redis.up()
    assert redis.status().running
    redis.pause()
    redis.down()
    assert redis.status().state is State.STOPPED


@pytest.mark.redis
def test_pause_needs_a_server(redis: Server) -> None:
    with pytest.raises(BrokersError, match="is not running"):
        redis.pause()
    redis.down()


@pytest.mark.redis
def test_status_describes_the_server(redis: Server, states: Path) -> None:
    stopped = redis.status()
    assert (stopped.state, stopped.pid, stopped.uptime) == (State.STOPPED, None, None)
    redis.up()
    status = redis.status()
    assert status.version.startswith("8.")
    assert status.url == redis.url == f"redis://127.0.0.1:{redis.port}/0"
    assert status.folder == states / redis.instance / "redis"
    assert status.pid is not None
    assert status.uptime is not None
    assert status.uptime < 60
    assert "Ready to accept connections" in redis.logs(5)


@pytest.mark.redis
def test_a_taken_port_is_reported(redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PORT_RELEASE", 0.5)
    with socket.socket() as other:
        other.bind((redis.host, redis.port))
        other.listen()
        with pytest.raises(StartFailed, match=f"port {redis.port} is taken"):
            redis.up()


@pytest.mark.nats
def test_a_server_that_does_not_start_shows_its_log(nats: Server, states: Path) -> None:
    data = states / nats.instance / "nats" / "data"
    data.mkdir(parents=True)
    (data / "jetstream").write_text("in the way")
    with pytest.raises(StartFailed, match=r"(?s)it ended.*whole log: "):
        nats.up()
    assert nats.status().state is State.STOPPED


@pytest.mark.rabbitmq
def test_rabbitmq_leaves_nothing_behind(instance: str) -> None:
    rabbitmq = brokers.server("rabbitmq", instance)
    rabbitmq.up()
    family = set(marked(instance))
    assert {"beam.smp", "epmd"} <= family
    mounts = Path("/proc/self/mounts").read_text()
    assert instance not in mounts
    rabbitmq.kill()
    assert not marked(instance)
    assert rabbitmq.up()
    rabbitmq.down()
    assert not marked(instance)


@pytest.mark.rabbitmq
def test_processes_that_outlive_their_server_are_ended(instance: str) -> None:
    rabbitmq = brokers.server("rabbitmq", instance)
    rabbitmq.up()
    pid = rabbitmq.status().pid
    assert pid is not None
    os.kill(pid, 9)
    while rabbitmq.status().pid is not None:
        pass
    assert "epmd" in marked(instance)
    rabbitmq.down()
    assert not marked(instance)


@pytest.mark.kafka
def test_kafka_keeps_its_cluster(instance: str, states: Path) -> None:
    kafka = brokers.server("kafka", instance)
    kafka.up()
    meta = states / instance / "kafka" / "data" / "meta.properties"
    cluster = meta.read_text()
    kafka.kill()
    kafka.up()
    assert meta.read_text() == cluster
    assert kafka.status().running


@pytest.mark.kafka
def test_a_cluster_id_may_begin_with_a_hyphen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in 64 does, and the formatting tool must not parse it as an option."""
    kind = Kafka()
    program = kind.install()
    monkeypatch.setattr(
        kafka, "uuid4", lambda: UUID(bytes=urlsafe_b64decode("-" + "A" * 21 + "=="))
    )
    ports = dict(zip(kind.ports, range(29_000, 29_100), strict=False))
    launch = kind.launch(program, tmp_path, ports, node="")
    assert launch.first is not None
    subprocess.run(launch.first, check=True, capture_output=True)
