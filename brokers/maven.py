"""Programs written in Java, downloaded with Maven."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import apt, state
from .errors import NotInstallable, say
from .tools import run, which

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


def fetch(name: str, artifacts: Mapping[str, str]) -> None:
    """Download artifacts (`group:artifact` to version) and their dependencies to `jars(name)`.

    Do nothing if that has been done.
    """
    folder = jars(name)
    with state.locked(state.installing(name), name) as lock:
        if not (folder / "complete").exists():
            _download(name, folder, artifacts, lock=lock)


def jars(name: str) -> Path:
    """Return the folder of the jar files downloaded as `name`."""
    return state.home() / name


def _download(name: str, folder: Path, artifacts: Mapping[str, str], *, lock: int) -> None:
    if which("mvn") is None:
        if not apt.available():
            raise NotInstallable(
                f"Maven (mvn), which downloads {name}, is not on PATH; on Debian: "
                "sudo apt-get install maven"
            )
        apt.install("maven")
    state.wipe(folder)
    state.write(folder / "pom.xml", _pom(name, artifacts))
    say(f"{name}: downloading with Maven")
    command = [which("mvn") or "mvn", "--batch-mode", "--no-transfer-progress"]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    run(
        [*command, f"-DoutputDirectory={folder}"],
        what=f"downloading {name} with Maven",
        log=state.home() / "logs" / f"{name}.log",
        cwd=folder,
        lock=lock,
    )
    (folder / "complete").touch()


def _pom(name: str, artifacts: Mapping[str, str]) -> str:
    dependencies: list[str] = []
    for key, version in artifacts.items():
        group, _, artifact = key.partition(":")
        dependencies.append(_DEPENDENCY.format(group=group, artifact=artifact, version=version))
    return _POM.format(name=name, dependencies="\n".join(dependencies))
