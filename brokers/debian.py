"""Programs out of Debian packages: installed on the host, or unpacked into a tree beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import state
from .errors import BrokersError, NotInstallable, say
from .tools import Version, output, run, version, which

# The release with RabbitMQ 4 and Redis 8, and a Go that can fetch a newer Go.
SUITE = "trixie"
# One tree serves both, so that it is unpacked once.
SERVERS = ("rabbitmq-server", "redis-server")
_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = "#!/bin/sh\n# Nothing is started while packages are installed.\nexit 101\n"

# Runs in a mount namespace of its own, which vanishes with the last process in it. The
# devices are new nodes on a tmpfs and never the host's /dev: nothing done to the tree,
# not even removing it, can reach the host through it.
_ENTER = """
set -e
tree=$1; shared=$2; shift 2
mkdir -p "$tree$shared"
mount --bind "$shared" "$tree$shared"
mount -t proc proc "$tree/proc"
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
mknod -m 666 "$tree/dev/null" c 1 3
mknod -m 666 "$tree/dev/zero" c 1 5
mknod -m 666 "$tree/dev/full" c 1 7
mknod -m 666 "$tree/dev/random" c 1 8
mknod -m 666 "$tree/dev/urandom" c 1 9
mknod -m 666 "$tree/dev/tty" c 5 0
ln -s /proc/self/fd "$tree/dev/fd"
mkdir -m 1777 "$tree/dev/shm"
exec chroot "$tree" "$@"
"""


@dataclass(frozen=True)
class Root:
    """A file system that programs run from: the host's (tree is None) or an unpacked tree."""

    tree: Path | None = None

    def command(self, argv: Sequence[str], *, shared: Path) -> list[str]:
        """The command as the host runs it; `shared` is at the same path inside and outside.

        Each step replaces the one before, so the process that is started becomes the program.
        """
        if self.tree is None:
            return list(argv)
        unshare = which("unshare") or "unshare"
        return [
            unshare,
            "--mount",
            "--propagation",
            "private",
            "/bin/sh",
            "-c",
            _ENTER,
            "enter",
            str(self.tree),
            str(shared),
            *argv,
        ]

    def path(self, path: str) -> Path:
        """Where the host finds a file of this root."""
        return Path(path) if self.tree is None else self.tree / path.lstrip("/")


HOST_ROOT = Root()


def available() -> bool:
    """Whether Debian's packages can be installed: a Debian or a kin of it, and root."""
    return which("apt-get") is not None and os.geteuid() == 0


def candidate(package: str) -> Version:
    """The version that apt would install on the host; empty when it knows none."""
    for line in output(["apt-cache", "policy", package], env=_environment()).splitlines():
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
                run(["apt-get", "update"], what="apt", log=_log("apt-update"), env=_environment())
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
            log=_log("apt-install"),
            env=_environment(),
        )


def provide(package: str, least: Version) -> Root:
    """A root with one of the servers' packages in it: the host where its Debian is new enough."""
    if available() and not _complete("servers").exists():
        update()
        if candidate(package) >= least:
            install(package)
            return HOST_ROOT
    return tree("servers", *SERVERS)


def tree(name: str, *packages: str) -> Root:
    """A tree of its own with these packages of the newer Debian, unpacked once and then kept."""
    complete = _complete(name)
    folder = complete.with_suffix("")
    _can_enter()
    with state.locked(state.installing(f"tree-{name}"), f"Debian {SUITE} for {name}"):
        if complete.exists() and folder.exists():
            return Root(folder)
        if which("mmdebstrap") is None:
            install("mmdebstrap", "debian-archive-keyring")
        update()
        state.wipe(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        say(f"unpacking Debian {SUITE} with {' '.join(packages)}")
        run(
            [
                which("mmdebstrap") or "mmdebstrap",
                "--mode=root",
                "--variant=apt",
                f"--include={','.join(packages)}",
                *_proxies(),
                SUITE,
                str(folder),
                *_mirror(),
            ],
            what=f"unpacking Debian {SUITE}",
            log=_log(f"tree-{name}"),
            env=_environment(),
        )
        complete.touch()
    return Root(folder)


def _has(package: str) -> bool:
    status = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return output(status) == "installed"


def _complete(name: str) -> Path:
    return state.home() / "trees" / f"{SUITE}-{name}.complete"


def discard(root: Root) -> None:
    """Remove a tree that has served its purpose."""
    if root.tree is not None:
        root.tree.with_name(f"{root.tree.name}.complete").unlink(missing_ok=True)
        state.wipe(root.tree)


def installed(root: Root, package: str) -> Version:
    """The version of a package in a root."""
    listing = root.path("/var/lib/dpkg/status").read_text(errors="replace")
    for entry in listing.split("\n\n"):
        lines = entry.splitlines()
        if f"Package: {package}" in lines:
            for line in lines:
                if line.startswith("Version: "):
                    return version(line.split(":", 2)[-1])
    raise BrokersError(f"{package} is not installed in {root.path('/')}")


def _can_enter() -> None:
    if which("apt-get") is None:
        raise NotInstallable(
            "it is not on PATH in a version that is new enough, there is no Docker engine, and "
            "this is no Debian: install it, or start Docker"
        )
    if os.geteuid() != 0:
        raise NotInstallable(
            "it is not on PATH in a version that is new enough, and what Debian "
            f"{SUITE} has can be unpacked and run only by root: run this command with sudo"
        )
    if which("mount") is None:
        install("mount")
    try_it = "mount -t tmpfs none /mnt && echo yes"
    if not output([which("unshare") or "unshare", "--mount", "/bin/sh", "-c", try_it]):
        raise NotInstallable(
            "this machine forbids private mounts, which running Debian "
            f"{SUITE} beside it needs: use a Debian {SUITE} image, "
            "or give the container CAP_SYS_ADMIN (docker run --privileged)"
        )


def _mirror() -> list[str]:
    """The archive that this host itself uses, so that its mirror settings hold here too."""
    if "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return []
    listing = output(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Origin: Debian",
            "Identifier: Packages",
        ],
        env=_environment(),
    )
    for line in listing.splitlines():
        label, _, uri = line.partition(" ")
        if label == "Debian":
            return [f"deb {uri} {SUITE} main"]
    return []


def _proxies() -> Iterator[str]:
    """The host's apt settings for reaching the archive."""
    for section in ("Acquire::http", "Acquire::https"):
        for line in output(["apt-config", "dump", section], env=_environment()).splitlines():
            if line.count('"') == 2 and '""' not in line:
                yield f"--aptopt={line}"


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


def _environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _log(name: str) -> Path:
    return state.home() / "logs" / f"{name}.log"
