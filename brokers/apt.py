"""Debian packages of this machine: versions, and installation without starting services."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import state
from .errors import BrokersError, NotInstallable, say
from .tools import Version, output, run, version, which

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = "#!/bin/sh\n# Services are not started while packages are installed.\nexit 101\n"


def available() -> bool:
    """Return whether packages can be installed: apt-get exists and the user is root."""
    return which("apt-get") is not None and os.geteuid() == 0


def candidate(package: str) -> Version:
    """Return the version that apt would install on the host; empty if it knows none."""
    for line in output(["apt-cache", "policy", package], env=environment()).splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "Candidate":
            return version(value.split(":", 1)[-1])
    return ()


def update() -> None:
    """Download the package lists once a day; the installation reports failing sources."""
    done = state.home() / "locks" / "apt-updated"
    with state.locked(state.installing("apt"), "apt"):
        lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
        if lists and done.exists() and time.time() - done.stat().st_mtime < 86_400:
            return
        say("apt: downloading the package lists")
        for _ in range(20):
            try:
                run(["apt-get", "update"], what="apt", log=log("apt-update"), env=environment())
            except BrokersError as error:
                if "Could not get lock" not in str(error):
                    return
                time.sleep(3)
            else:
                done.touch()
                return


def install(*packages: str) -> None:
    """Install packages on the host without starting their services."""
    if not available():
        raise NotInstallable(
            f"Debian packages {', '.join(packages)} are missing, and only root may install them: "
            f"sudo apt-get update && sudo apt-get install {' '.join(packages)}"
        )
    update()
    with state.locked(state.installing("apt"), "apt"), _nothing_starts():
        if all(_has(package) for package in packages):
            return
        say(f"apt: installing {' '.join(packages)}")
        run(
            [
                "apt-get",
                "install",
                "-y",
                "--no-install-recommends",
                "-o",
                "DPkg::Lock::Timeout=300",
                *packages,
            ],
            what=f"installing {' '.join(packages)}",
            log=log("apt-install"),
            env=environment(),
        )


def mirror() -> str:
    """Return the URL of the host's package archive; empty if the host is not Debian."""
    if "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return ""
    listing = output(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Origin: Debian",
            "Identifier: Packages",
        ],
        env=environment(),
    )
    for line in listing.splitlines():
        label, _, uri = line.partition(" ")
        if label == "Debian":
            return uri
    return ""


def proxies() -> Iterator[str]:
    """Yield mmdebstrap options for the host's apt proxy settings."""
    for section in ("Acquire::http", "Acquire::https"):
        for line in output(["apt-config", "dump", section], env=environment()).splitlines():
            if line.count('"') == 2 and '""' not in line:
                yield f"--aptopt={line}"


def environment() -> dict[str, str]:
    """Return the environment for Debian's tools: non-interactive, in English."""
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _has(package: str) -> bool:
    status = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return output(status) == "installed"


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Prevent packages from starting services, unless the administrator has a policy file."""
    if _POLICY.exists() and _POLICY.read_text() != _POLICY_TEXT:
        yield
        return
    _POLICY.write_text(_POLICY_TEXT)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def log(name: str) -> Path:
    """Return the log file of one installer."""
    return state.home() / "logs" / f"{name}.log"
