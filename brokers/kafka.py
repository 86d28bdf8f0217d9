"""Kafka 4 (KRaft, one combined node) from Maven, on the host's Java."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from . import apt, ready, state
from .errors import NotInstallable, say
from .kind import Kind, Launch, Ports, Program
from .ports import HOST
from .tools import output, run, version, which

RELEASE = (4, 2, 0)
_LEAST_JAVA = (17,)
_JVMS = Path("/usr/lib/jvm")

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>anymq</groupId>
  <artifactId>brokers-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.2.0</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{client},PROXIED://{host}:{proxied},CONTROLLER://{host}:{controller}
# Who comes in by PROXIED is told to connect to where a proxy may be listening.
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
# After a kill the restarted broker waits until its former self has timed out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class Kafka(Kind):
    """An acked message is in the page cache: it survives a kill of the server."""

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
        jars = _jars()
        with state.locked(state.installing("kafka"), "kafka") as lock:
            if not (jars / "complete").exists():
                _download(jars, lock=lock)
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
            f"{_jars()}/*",
        ]
        first = None
        if not (data / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
            first = [
                *java,
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
                f"--cluster-id={cluster}",  # which may begin with a hyphen
                "--config",
                str(config),
            ]
        return Launch([*java, "kafka.Kafka", str(config)], first=first)

    def ready(self, port: int, timeout: float) -> None:
        ready.kafka(port, timeout)


def _jars() -> Path:
    return state.home() / f"kafka-{'.'.join(map(str, RELEASE))}"


def _java() -> str:
    """A Java that Kafka 4 runs on: the environment's, or Debian's."""
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


def _download(jars: Path, *, lock: int) -> None:
    if which("mvn") is None:
        if not apt.available():
            raise NotInstallable(
                "Maven (mvn), which fetches Kafka, is not on PATH; on Debian: "
                "sudo apt-get install maven"
            )
        apt.install("maven")
    state.wipe(jars)
    jars.mkdir(parents=True)
    (jars / "pom.xml").write_text(_POM)
    say("kafka: fetching Kafka 4.2.0 with Maven")
    run(
        [
            which("mvn") or "mvn",
            "--batch-mode",
            "--no-transfer-progress",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={jars}",
        ],
        what="fetching Kafka with Maven",
        log=state.home() / "logs" / "kafka.log",
        cwd=jars,
        lock=lock,
    )
    (jars / "complete").touch()
