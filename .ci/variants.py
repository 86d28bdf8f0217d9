"""Run the tests with other Pythons, or with other releases of the dependencies.

`python .ci/variants.py matrix|lowest|newest [PYTEST ARGUMENTS]`

- matrix: the quick tests, which need no server, on every supported Python that is found.
- lowest: the quick tests, the conformance suite and the adapters' tests on the lowest releases that
  pyproject.toml allows.
- newest: the same on the newest releases there are, beyond the ranges of pyproject.toml.

Each has an environment of its own in build/environments. An argument that begins with `tests`
replaces the selection. `lowest` and `newest` start the servers and stop them again, unless
ANYMQ_BROKERS_INSTANCE names an instance that is running.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from bootstrap import BASE_PYTHON, ROOT, Environment, python_version
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = ROOT / "build" / "environments"
QUICK = (
    "tests/core",
    "tests/conformance/test_memory.py",
    "tests/conformance/test_sqlite.py",
    "tests/packaging",
)
WITH_SERVERS = ("tests/core", "tests/conformance", "tests/adapters")
NO_SERVER = "not kafka and not rabbitmq and not nats and not redis"
WORKERS = ("-n", "4", "--dist", "loadgroup")


def find_python(wanted: str) -> str | None:
    """Return an interpreter of the version, from the PATH or else the newest that pyenv has."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{wanted}.*/bin/python"), key=_version_of, reverse=True)
    on_path = shutil.which(f"python{wanted}")
    for candidate in (BASE_PYTHON, on_path, *map(str, installed)):
        # A shim of pyenv is on the PATH also when it refuses to run.
        if candidate and python_version(candidate).startswith(f"{wanted}."):
            return candidate
    return None


def _version_of(python: Path) -> Version:
    return Version(python.parents[1].name)


def requirements(*, testing: bool) -> Iterator[Requirement]:
    """Yield what the project and its extras require; that of the extra `testing` only if asked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    lists = [extra for name, extra in extras.items() if testing or name != "testing"]
    for text in itertools.chain(project["dependencies"], *lists):
        requirement = Requirement(text)
        if requirement.name != project["name"]:
            yield requirement


def pinned_to_lowest(requirement: Requirement) -> str:
    """Return the requirement with its lower bound as the only release allowed."""
    (lowest,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return re.sub(r"[<>=!~][^;]*", f"=={lowest}", str(requirement), count=1)


def without_bounds(requirement: Requirement) -> str:
    """Return the requirement with any release allowed."""
    return re.sub(r"[<>=!~][^;]*", "", str(requirement), count=1)


def run_tests(
    environment: Environment, selection: tuple[str, ...], arguments: list[str], *, servers: bool
) -> int:
    """Run pytest in the environment, by `tests.run` if it is to start `servers`."""
    if any(argument.startswith("tests") for argument in arguments):
        selection = ()
    start = servers and "ANYMQ_BROKERS_INSTANCE" not in os.environ
    module = ("tests.run",) if start else ("pytest", *WORKERS)
    command = [str(environment.python), "-m", *module, *selection, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def matrix(arguments: list[str]) -> int:
    """Run the quick tests on every Python that is found, and say which passed."""
    results: dict[str, str] = {}
    for version in SUPPORTED:
        python = find_python(version)
        if python is None:
            results[version] = "not found"
            continue
        print(f"\nmatrix: Python {version}, {python}", flush=True)
        environment = Environment(ENVIRONMENTS / f"python{version}", python)
        environment.prepare()
        failed = run_tests(environment, QUICK, ["-m", NO_SERVER, *arguments], servers=False)
        results[version] = f"failed with exit code {failed}" if failed else "passed"
    lines = (f"Python {version} {result}" for version, result in results.items())
    print("\nmatrix:", *lines, sep="\n  ")
    return int(any(result.startswith("failed") for result in results.values()))


def lowest(arguments: list[str]) -> int:
    """Run the tests with the lowest releases that pyproject.toml allows."""
    wanted = list(requirements(testing=True))
    environment = Environment(
        ENVIRONMENTS / "lowest", replaced=tuple(map(pinned_to_lowest, wanted))
    )
    environment.prepare()
    show_releases(environment, wanted)
    return run_tests(environment, WITH_SERVERS, arguments, servers=True)


def newest(arguments: list[str]) -> int:
    """Run the tests with the newest releases; pytest stays, as its plugins have to follow it."""
    wanted = list(requirements(testing=False))
    environment = Environment(ENVIRONMENTS / "newest")
    environment.prepare()
    environment.pip_install("--upgrade", *map(without_bounds, wanted))
    show_releases(environment, wanted)
    return run_tests(environment, WITH_SERVERS, arguments, servers=True)


def show_releases(environment: Environment, wanted: list[Requirement]) -> None:
    """Print the installed releases of `wanted`."""
    freeze = [str(environment.python), "-m", "pip", "list", "--format=freeze"]
    lines = subprocess.run(freeze, capture_output=True, check=True, text=True).stdout.splitlines()
    names = {canonicalize_name(requirement.name) for requirement in wanted}
    print(*(line for line in lines if canonicalize_name(line.split("==")[0]) in names), flush=True)


COMMANDS = {"matrix": matrix, "lowest": lowest, "newest": newest}

if __name__ == "__main__":
    try:
        sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{sys.argv[1]}: failed: {' '.join(map(str, error.cmd))}")
    except KeyboardInterrupt:
        sys.exit(130)
