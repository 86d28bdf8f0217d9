"""Make `.venv`: exactly the packages of requirements.lock, and this project installed editable.

Does only what the last run did not: a new lock makes the environment anew, a new pyproject.toml
installs the project again. Two at once are safe: the second waits for the first. Needs only Python
and its `venv`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
# The interpreter itself, also when this one is that of a virtual environment (perhaps of .venv).
BASE_PYTHON = str(getattr(sys, "_base_executable", None) or sys.executable)


class Stamp:
    """Remembers, in a file of the environment, the content that a step was last done for."""

    def __init__(self, file: Path, content: bytes) -> None:
        self.file = file
        # A virtual environment holds absolute paths, so its place is part of the content.
        self.content = hashlib.sha256(bytes(file.parent) + content).hexdigest()

    def is_current(self) -> bool:
        return self.file.exists() and self.file.read_text() == self.content

    def set(self) -> None:
        self.file.write_text(self.content)


class Environment:
    """A virtual environment with the locked packages and this project.

    `replaced` are requirements that are installed over the locked versions.
    """

    def __init__(
        self, folder: Path, base_python: str = BASE_PYTHON, *, replaced: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._base_python = base_python
        self._replaced = replaced
        packages = LOCK.read_bytes() + "\n".join(replaced).encode()
        self._packages = Stamp(folder / "stamp-environment", packages)
        project = (ROOT / "pyproject.toml").read_bytes()
        self._project = Stamp(folder / "stamp-project", project)

    def prepare(self) -> None:
        """Do the steps that are not done yet."""
        steps = ((self._packages, self._install_packages), (self._project, self._install_project))
        if self.python.exists() and all(stamp.is_current() for stamp, _ in steps):
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.folder.name}.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            for stamp, step in steps:
                if not (self.python.exists() and stamp.is_current()):  # perhaps another run did it
                    step()
                    stamp.set()

    def pip_install(self, *arguments: str) -> None:
        pip = (str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "--no-input", "install", "--progress-bar", "off", *arguments)

    def _install_packages(self) -> None:
        version = python_version(self._base_python)
        name = self.folder.relative_to(ROOT)
        print(f"setup: making {name} (Python {version}) from {LOCK.name}", flush=True)
        require_venv_module(self._base_python)
        run(self._base_python, "-m", "venv", "--clear", str(self.folder))
        self.pip_install("--no-deps", "--require-hashes", "-r", str(LOCK))
        if self._replaced:
            self.pip_install(*self._replaced)

    def _install_project(self) -> None:
        self.pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)


def python_version(python: str) -> str:
    """Return the version of an interpreter, as `3.11.7`; empty if it cannot be run."""
    command = [python, "-c", "import platform; print(platform.python_version())"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def require_venv_module(python: str) -> None:
    """Debian ships Python without `ensurepip`, in a package of its own."""
    probe = [python, "-c", "import ensurepip, venv"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    major_minor = ".".join(python_version(python).split(".")[:2])
    package = f"python{major_minor}-venv"
    if not Path("/usr/bin/apt-get").exists():
        sys.exit(f"{python} has no venv module: install it, or set PYTHON to another Python")
    if os.geteuid() != 0:
        sys.exit(f"{python} has no venv module. Install it:\n  sudo apt-get install {package}")
    print(f"setup: installing {package}", flush=True)
    run("apt-get", "-qq", "update")
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "install", package)


if __name__ == "__main__":
    try:
        Environment(ROOT / ".venv").prepare()
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup: failed: {' '.join(error.cmd)}")
    except KeyboardInterrupt:
        sys.exit(130)
