"""Tools written in Java, which Maven fetches into the cache of `brokers`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from brokers import state
from brokers.errors import say
from brokers.tools import run, which

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>anymq</groupId>
  <artifactId>{name}</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """    <dependency>
      <groupId>{group}</groupId>
      <artifactId>{artifact}</artifactId>
      <version>{version}</version>
    </dependency>"""


def missing() -> str | None:
    """Return what is not here, or None."""
    absent = [name for name, path in (("Java", _java()), ("Maven", which("mvn"))) if path is None]
    return " and ".join(absent) or None


def fetch(name: str, artifacts: Mapping[str, str]) -> None:
    """Fetch artifacts (`group:artifact`, and the version) with all that they need."""
    jars = _jars(name)
    with state.locked(state.installing(name), name) as lock:
        if (jars / "complete").exists():
            return
        state.wipe(jars)
        jars.mkdir(parents=True)
        state.write(jars / "pom.xml", _pom(name, artifacts))
        say(f"{name}: fetching it with Maven")
        command = [which("mvn") or "mvn", "--batch-mode", "--no-transfer-progress"]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        run(
            [*command, f"-DoutputDirectory={jars}"],
            what=f"fetching {name} with Maven",
            log=state.home() / "logs" / f"{name}.log",
            cwd=jars,
            lock=lock,
        )
        (jars / "complete").touch()


def command(name: str, main: str) -> list[str]:
    """Return the command that runs the class `main` of what was fetched as `name`."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return [_java() or "java", "-Xmx512m", quiet, "-cp", f"{_jars(name)}/*", main]


def _jars(name: str) -> Path:
    return state.home() / name


def _java() -> str | None:
    if (home := os.environ.get("JAVA_HOME")) and Path(home, "bin", "java").exists():
        return f"{home}/bin/java"
    return which("java")


def _pom(name: str, artifacts: Mapping[str, str]) -> str:
    dependencies: list[str] = []
    for key, version in artifacts.items():
        group, _, artifact = key.partition(":")
        dependencies.append(_DEPENDENCY.format(group=group, artifact=artifact, version=version))
    return _POM.format(name=name, dependencies="\n".join(dependencies))
