"""What a user installs, made from the tree once a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = sorted(path.name for path in (ROOT / "adapters").iterdir() if path.is_dir())
CORE = ["anymq", "anymq_pytest"]
PACKAGES = [*CORE, *ADAPTERS]

# One worker runs all tests of what was built, so that it is built and installed once.
built_once = pytest.mark.xdist_group("built")


def run(*command: str, timeout: float = 300) -> str:
    """What the command prints; the test fails with what it said if it fails."""
    # Without it, a folder that is called like a client library, beside the checkout, is imported.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        cwd=ROOT.parent,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel built from that sdist, as they are published."""
    folder = tmp_path_factory.mktemp("built")
    python = (sys.executable, "-m", "build", "--no-isolation")
    run(*python, "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    (path,) = built.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def user_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that holds nothing but `anymq[redis]`, newest versions."""
    environment = tmp_path_factory.mktemp("user") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    python = str(environment / "bin" / "python")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-input")
    run(*pip, f"{wheel}[redis]")
    return python
