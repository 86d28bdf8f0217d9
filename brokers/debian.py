"""Programs from Debian packages, installed on the host or unpacked into a separate tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import apt, state
from .errors import BrokersError, NotInstallable, say
from .tools import Version, output, run, version, which

# The release with RabbitMQ 4, Redis 8, and a Go that can download newer toolchains.
SUITE = "trixie"
# Both servers share one tree, so it is unpacked once.
SERVERS = ("rabbitmq-server", "redis-server")

# Runs in a separate mount namespace, which ends with its last process. Devices are new nodes on
# a tmpfs instead of the host's /dev, so that no change to the tree, not even its removal, can
# affect the host.
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
    """The root file system of a program: the host's (`tree` is None) or an unpacked tree."""

    tree: Path | None = None

    def command(self, argv: Sequence[str], *, shared: Path) -> list[str]:
        """Return the host's command line that runs `argv` in this root.

        The folder `shared` has the same path inside and outside. Each step executes the next in
        place, so the started process becomes the program.
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
        """Return the host's path of a file in this root."""
        return Path(path) if self.tree is None else self.tree / path.lstrip("/")


HOST_ROOT = Root()


def provide(package: str, least: Version) -> Root:
    """Return a root with the package: the host, if it offers version `least`, or a tree."""
    if which("apt-get") is not None and not _folder("servers").exists():
        if apt.available():
            apt.update()
        if apt.candidate(package) >= least:
            apt.install(package)
            return HOST_ROOT
    return tree("servers", *SERVERS)


def tree(name: str, *packages: str) -> Root:
    """Return a tree with packages of Debian `SUITE`, unpacked on first use."""
    folder = _folder(name)
    _can_enter()
    with state.locked(state.installing(f"tree-{name}"), f"Debian {SUITE} for {name}") as lock:
        if not folder.exists():
            _unpack(folder, packages, lock=lock)
    return Root(folder)


def discard(root: Root) -> None:
    """Remove a tree that is no longer needed."""
    if root.tree is not None:
        state.wipe(root.tree)


def installed(root: Root, package: str) -> Version:
    """Return the installed version of a package in a root."""
    listing = root.path("/var/lib/dpkg/status").read_text(errors="replace")
    for entry in listing.split("\n\n"):
        lines = entry.splitlines()
        if f"Package: {package}" in lines:
            for line in lines:
                if line.startswith("Version: "):
                    return version(line.split(":", 2)[-1])
    raise BrokersError(f"{package} is not installed in {root.path('/')}")


def _folder(name: str) -> Path:
    return state.home() / "trees" / f"{SUITE}-{name}"


def _unpack(folder: Path, packages: Sequence[str], *, lock: int) -> None:
    if which("mmdebstrap") is None:
        apt.install("mmdebstrap", "debian-archive-keyring")
    apt.update()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{folder.name}.*.part"):
        state.wipe(left)
    # Renamed once complete, so that an interrupted run never leaves an incomplete tree.
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    say(f"unpacking Debian {SUITE} with {' '.join(packages)}")
    program = [which("mmdebstrap") or "mmdebstrap", "--mode=root", "--variant=apt"]
    mirror = apt.mirror()
    run(
        [
            *program,
            f"--include={','.join(packages)}",
            *apt.proxies(),
            SUITE,
            str(part),
            *([f"deb {mirror} {SUITE} main"] if mirror else []),
        ],
        what=f"unpacking Debian {SUITE}",
        log=apt.log(folder.name),
        env=apt.environment(),
        lock=lock,
    )
    part.rename(folder)


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
        apt.install("mount")
    try_it = "mount -t tmpfs none /mnt && echo yes"
    if not output([which("unshare") or "unshare", "--mount", "/bin/sh", "-c", try_it]):
        raise NotInstallable(
            "this machine forbids private mounts, which running Debian "
            f"{SUITE} beside it needs: use a Debian {SUITE} image, "
            "or give the container CAP_SYS_ADMIN (docker run --privileged)"
        )
