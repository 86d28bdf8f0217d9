"""The adapter of `docs/writing-an-adapter.md`: taken from the page, installed, put to the proof.

It is used as its author would: beside the wheel of anymq, in an environment that knows nothing of
this checkout. Only what is installed here besides anymq is lent to that environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from anymq.testing.conformance import Conformance
from tests.docs.markdown import Block, commands, shows
from tests.docs.pages import Page
from tests.packaging.conftest import ROOT, built_once

PAGE = ROOT / "docs" / "writing-an-adapter.md"
NAME = "anymq-pigeon"

pytestmark = [built_once, pytest.mark.long]

SHOW = """
import asyncio, sys
import anymq

async def main():
    async with anymq.connect("pigeon://home?dedup=60") as broker:
        await broker.publish("orders", "hello", id="one")
        await broker.publish("orders", "hello", id="one")
        async with broker.subscribe("orders", group="readers") as deliveries:
            delivery = await anext(deliveries)
            print(delivery.message.body.decode(), len(broker.native["orders"].letters))
            await delivery.ack()

print(anymq.__file__)
try:
    asyncio.run(main())
except anymq.UnknownScheme as error:
    print(error)
"""


def run(*command: str, folder: Path, timeout: float = 300) -> str:
    """What the command prints, in an environment without the variables of this test run."""
    ours = ("ANYMQ_", "PYTEST_", "PYTHON")
    environment = {name: os.environ[name] for name in os.environ if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(python: str, *arguments: str, folder: Path) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "--quiet", *arguments, folder=folder)


def install(python: str, what: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-input")
    pip(python, "install", *options, str(what), folder=what.parent)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the distribution that the page shows."""
    folder = tmp_path_factory.mktemp("third-party") / NAME
    Page(PAGE.read_text(encoding="utf-8"), folder).write()
    (folder / "anymq_pigeon" / "py.typed").touch()
    return folder


@pytest.fixture(scope="module")
def python(wheel: Path, project: Path) -> str:
    """The Python of an environment with the wheel of anymq and the adapter."""
    environment = project.parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(environment), folder=project.parent)
    python = str(environment / "bin" / "python")
    install(python, wheel)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", ask, folder=project).strip())
    # A folder that a .pth file names has its own .pth files left alone: the checkout stays out.
    lent = "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "lent.pth").write_text(lent + "\n", encoding="utf-8")
    install(python, project)
    return python


@pytest.fixture(scope="module")
def shown() -> Block:
    """The block of the page that shows the run of the suite."""
    (block,) = (
        block
        for block in Page(PAGE.read_text(encoding="utf-8"), PAGE.parent).blocks
        if block.language == "console" and "passed" in block.text
    )
    return block


def test_it_passes_the_suite(project: Path, python: str, shown: Block) -> None:
    (command,) = commands(shown)
    program, *arguments = command.text.split()
    printed = run(python, "-m", program, *arguments, folder=project)
    totals = re.search(r"^pigeon: (\d+) passed, 0 failed, (\d+) skipped$", printed, re.MULTILINE)
    assert totals, printed
    passed, skipped = map(int, totals.groups())
    assert passed + skipped >= sum(name.startswith("test_") for name in dir(Conformance))
    assert skipped < passed
    assert shows(command.output, printed), printed


def test_it_is_found_by_its_scheme_while_it_is_installed(project: Path, python: str) -> None:
    installed = run(python, "-c", SHOW, folder=project.parent).splitlines()
    assert installed[0].startswith(str(project.parent)), "the wheel, not the checkout"
    assert installed[1:] == ["hello 1"], "and what is published twice is stored once"
    pip(python, "uninstall", "--yes", NAME, folder=project)
    try:
        (_, message) = run(python, "-c", SHOW, folder=project.parent).splitlines()
    finally:
        install(python, project)
    assert message.startswith("pigeon:// has no adapter installed; the schemes with an adapter are")
    assert "sqlite://" in message


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_it_is_written_as_ours_are(arguments: list[str], project: Path) -> None:
    settings = str(ROOT / "pyproject.toml")
    ruff = (sys.executable, "-m", "ruff", *arguments, "--no-cache", "--config", settings)
    run(*ruff, str(project), folder=project)


def test_it_is_typed(project: Path, python: str) -> None:
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python)
    run(*mypy, "anymq_pigeon", "tests", folder=project)
