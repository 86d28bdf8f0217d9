"""Programs that cannot be installed are named, with the command that installs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import brokers
from brokers import BrokersError, NotInstallable, apt, state
from brokers.kafka import Kafka
from brokers.tools import tail, version


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate an unprivileged user on a Debian without Java, Maven, Go or servers."""
    monkeypatch.setenv("ANYMQ_BROKERS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("brokers.tools._PATH", str(programs))
    monkeypatch.setattr("brokers.kafka._JVMS", programs)
    monkeypatch.setattr("brokers.rabbitmq._SCRIPT", str(programs / "none"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return programs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "kafka",
            "Java 17 or newer is neither at JAVA_HOME nor on PATH; on Debian: "
            "sudo apt-get install default-jre-headless",
        ),
        (
            "nats",
            "nats-server 2.12 or newer is not on PATH and there is no Go 1.21 or newer to build "
            "it: install Go, then: go install github.com/nats-io/nats-server/v2@v2.15.2",
        ),
        (
            "redis",
            "it is not on PATH in a version that is new enough, and what Debian trixie has can "
            "be unpacked and run only by root: run this command with sudo",
        ),
    ],
)
def test_missing_programs_are_named(name: str, message: str, bare: Path, instance: str) -> None:
    with pytest.raises(NotInstallable) as caught:
        brokers.server(name, instance).up()
    assert str(caught.value) == message


def test_another_system_than_debian_needs_docker(bare: Path, instance: str) -> None:
    (bare / "apt-get").unlink()
    with pytest.raises(NotInstallable, match="this is no Debian: install it, or start Docker"):
        brokers.server("rabbitmq", instance).up()


def test_maven_is_missing(bare: Path, instance: str) -> None:
    java = bare / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\"'\n")
    java.chmod(0o755)
    with pytest.raises(NotInstallable, match="sudo apt-get install maven"):
        brokers.server("kafka", instance).up()


@pytest.mark.redis
def test_a_failed_installation_does_not_stop_the_others(
    instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Kafka) -> None:
        raise NotInstallable("no Java")

    monkeypatch.setattr(Kafka, "install", fail)
    with pytest.raises(NotInstallable, match="kafka: no Java"):
        brokers.up(("kafka", "redis"), instance)
    assert brokers.server("redis", instance).status().running


def test_packages_need_root(bare: Path) -> None:
    with pytest.raises(NotInstallable, match="sudo apt-get update && sudo apt-get install a b"):
        apt.install("a", "b")


def test_nothing_is_wiped_below_a_mount() -> None:
    with pytest.raises(BrokersError, match="is mounted"):
        state.wipe(Path("/proc/self").parent)


def test_versions_are_parsed() -> None:
    assert version('openjdk version "17.0.15" 2025-04-15') == (17, 0, 15)
    assert version("nats-server: v2.15.2") == (2, 15, 2)
    assert version("none") == ()
    assert version("") < (17,) < version("17.0.1")


def test_the_tail_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert tail(file, 3) == ""
    file.write_text("".join(f"{n}\n" for n in range(10_000)))
    assert tail(file, 2) == "9998\n9999"
    assert tail(file, 0) == ""
