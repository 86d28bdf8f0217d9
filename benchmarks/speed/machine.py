"""The machine of a run, without which its figures cannot be interpreted."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from .results import Machine

PACKAGES = (
    "aiokafka",
    "aio-pika",
    "aiormq",
    "nats-py",
    "redis",
    "hiredis",
    "uvloop",
    "pydantic",
    "faststream",
    "mq-bridge",
)

CAVEATS = (
    "Servers, producers and consumers share the cores of one machine. Absolute figures are lower "
    "than on separate machines, and a client that uses less CPU time has a larger advantage.",
    "All connections use the loopback interface. There is no network latency, which favours "
    "clients that wait for every answer.",
    "Each server is a single node without replicas.",
    "Compare figures within one run, and ratios rather than absolute figures.",
)


def machine() -> Machine:
    """Return the description of this machine and the installed packages."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        loop="asyncio" if _version("uvloop") is None else f"uvloop {_version('uvloop')}",
        load=os.getloadavg()[0],
        packages={name: found for name in PACKAGES if (found := _version(name))},
    )


def commit(root: Path) -> str:
    """Return the measured commit, with `+` if its files were changed; empty if unknown."""
    try:
        short = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "core", "adapters")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{short}+" if changed else short


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
