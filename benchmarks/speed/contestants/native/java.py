"""Native tools written in Java."""

from __future__ import annotations

import os
from pathlib import Path

from brokers import maven
from brokers.tools import which


def missing() -> str | None:
    """Return the names of the missing programs, or None."""
    absent = [name for name, path in (("Java", _java()), ("Maven", which("mvn"))) if path is None]
    return " and ".join(absent) or None


def command(name: str, main: str) -> list[str]:
    """Return the command that runs the class `main` of the jar files downloaded as `name`."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return [_java() or "java", "-Xmx512m", quiet, "-cp", f"{maven.jars(name)}/*", main]


def _java() -> str | None:
    if (home := os.environ.get("JAVA_HOME")) and Path(home, "bin", "java").exists():
        return f"{home}/bin/java"
    return which("java")
