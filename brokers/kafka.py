"""Kafka 4 (KRaft, one combined node) from Maven, run by the host's Java."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from . import apt, maven, ready, state
from .errors import NotInstallable
from .kind import Kind, Launch, Ports, Program
from .ports import HOST
from .tools import output, version, which

RELEASE = (4, 2, 0)
_NAME = "kafka-4.2.0"
_LEAST_JAVA = (17,)
_JVMS = Path("/usr/lib/jvm")

_ARTIFACTS = {"org.apache.kafka:kafka_2.13": "4.2.0", "org.slf4j:slf4j-simple": "1.7.36"}

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{client},PROXIED://{host}:{proxied},CONTROLLER://{host}:{controller}
# Clients of PROXIED are directed to the port on which a proxy may listen.
advertised.listeners=PLAINTEXT://{host}:{client},PROXIED://{host}:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a kill, the restarted broker waits for the session of the killed one to time out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class Kafka(Kind):
    """The Kafka server. An acknowledged message is in the page cache and survives a kill."""

    name = "kafka"
    ports: ClassVar[Ports] = {
        "client": 19092,
        "controller": 19093,
        "proxied": 19094,
        "proxy": 19095,
    }
    words = ("kafka.Kafka",)
    grace = 20.0

    def url(self, port: int) -> str:
        return f"kafka://{HOST}:{port}"

    def route(self, ports: Ports) -> tuple[int, int]:
        return ports["proxy"], ports["proxied"]

    def install(self) -> Program:
        java = _java()
        maven.fetch(_NAME, _ARTIFACTS)
        return Program(java, RELEASE)

    def launch(self, program: Program, folder: Path, ports: Ports, *, node: str) -> Launch:
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        config = folder / "server.properties"
        state.write(config, _PROPERTIES.format(host=HOST, data=data, **ports))
        java = [
            program.path,
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
            f"{maven.jars(_NAME)}/*",
        ]
        first = None
        if not (data / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
            first = [
                *java,
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
                f"--cluster-id={cluster}",  # may begin with a hyphen
                "--config",
                str(config),
            ]
        return Launch([*java, "kafka.Kafka", str(config)], first=first)

    def ready(self, port: int, timeout: float) -> None:
        ready.kafka(port, timeout)


def _java() -> str:
    """Return a Java that can run Kafka 4, from the environment or from Debian."""
    if found := _find_java():
        return found
    if not apt.available():
        raise NotInstallable(
            "Java 17 or newer is neither at JAVA_HOME nor on PATH; on Debian: "
            "sudo apt-get install default-jre-headless"
        )
    apt.install("default-jre-headless")
    if found := _find_java():
        return found
    raise NotInstallable(
        "this Debian's default Java is older than 17, which Kafka 4 needs: "
        "install a newer one and set JAVA_HOME"
    )


def _find_java() -> str | None:
    named = os.environ.get("JAVA_HOME")
    places = [f"{named}/bin/java"] if named else []
    places += [path for path in (which("java"),) if path]
    places += sorted(map(str, _JVMS.glob("*/bin/java")), reverse=True)
    for path in places:
        # Its first line is like: openjdk version "17.0.15" 2025-04-15
        if version(output([path, "-version"])) >= _LEAST_JAVA:
            return path
    return None
