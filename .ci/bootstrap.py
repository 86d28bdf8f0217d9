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
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
# The interpreter itself, also when this one is that of a virtual environment (perhaps of .venv).
BASE_PYTHON = str(getattr(sys, "_base_executable", None) or sys.executable)


class Stamp:
    """Remembers, in a file of the environment, the content that a step was last done for."""

    def __init__(self, name: str, source: Path) -> None:
        self.file = VENV / name
        # A virtual environment holds absolute paths, so its place is part of the content.
        self.content = hashlib.sha256(bytes(ROOT) + source.read_bytes()).hexdigest()

    def is_current(self) -> bool:
        return self.file.exists() and self.file.read_text() == self.content

    def set(self) -> None:
        self.file.write_text(self.content)


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)


def require_venv_module() -> None:
    """Debian ships Python without `ensurepip`, in a package of its own."""
    probe = [BASE_PYTHON, "-c", "import ensurepip, venv"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if not Path("/usr/bin/apt-get").exists():
        sys.exit(f"{BASE_PYTHON} has no venv module: install it, or set PYTHON to another Python")
    if os.geteuid() != 0:
        sys.exit(f"{BASE_PYTHON} has no venv module. Install it:\n  sudo apt-get install {package}")
    print(f"setup: installing {package}", flush=True)
    run("apt-get", "-qq", "update")
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "install", package)


def pip_install(*arguments: str) -> None:
    pip = (str(VENV_PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    run(*pip, "install", "--progress-bar", "off", "--no-deps", *arguments)


def make_environment() -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"setup: making .venv (Python {version}) from {LOCK.name}", flush=True)
    require_venv_module()
    run(BASE_PYTHON, "-m", "venv", "--clear", str(VENV))
    pip_install("--require-hashes", "-r", str(LOCK))


def install_project() -> None:
    pip_install("--no-build-isolation", "--editable", str(ROOT))


def main() -> None:
    environment = Stamp("stamp-environment", LOCK)
    project = Stamp("stamp-project", ROOT / "pyproject.toml")
    steps = ((environment, make_environment), (project, install_project))
    if VENV_PYTHON.exists() and all(stamp.is_current() for stamp, _ in steps):
        return
    with (ROOT / ".venv.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for stamp, step in steps:
            if not (VENV_PYTHON.exists() and stamp.is_current()):  # perhaps another run did it
                step()
                stamp.set()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup: failed: {' '.join(error.cmd)}")
    except KeyboardInterrupt:
        sys.exit(130)
