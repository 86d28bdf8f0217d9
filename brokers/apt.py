"""Debian's packages on this machine: what there is, and installing without starting anything."""

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
_POLICY_TEXT = "#!/bin/sh\n# Nothing is started while packages are installed.\nexit 101\n"


def available() -> bool:
    """Whether Debian's packages can be installed: a Debian or a kin of it, and root."""
    return which("apt-get") is not None and os.geteuid() == 0


def candidate(package: str) -> Version:
    """The version that apt would install on the host; empty when it knows none."""
    for line in output(["apt-cache", "policy", package], env=environment()).splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "Candidate":
            return version(value.split(":", 1)[-1])
    return ()


def update() -> None:
    """Fetch apt's lists, once a day; a failing source is left for the install to tell."""
    done = state.home() / "locks" / "apt-updated"
    with state.locked(state.installing("apt"), "apt"):
        lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
        if lists and done.exists() and time.time() - done.stat().st_mtime < 86_400:
            return
        say("apt: reading the package lists")
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
    """Install packages on the host; none of their services is started."""
    if not available():
        raise NotInstallable(
            f"Debian's packages {', '.join(packages)} are missing and only root may install them: "
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
    """The archive that this host itself uses; empty where it is no Debian."""
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
    """The host's apt settings for reaching the archive."""
    for section in ("Acquire::http", "Acquire::https"):
        for line in output(["apt-config", "dump", section], env=environment()).splitlines():
            if line.count('"') == 2 and '""' not in line:
                yield f"--aptopt={line}"


def environment() -> dict[str, str]:
    """Debian's tools ask nothing, and speak English."""
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _has(package: str) -> bool:
    status = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return output(status) == "installed"


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Debian starts what it installs unless this file says no; an administrator's own stays."""
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
    """Where the output of one installer goes."""
    return state.home() / "logs" / f"{name}.log"
