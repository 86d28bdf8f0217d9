"""README and docs: what they show runs, and prints what they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from anymq import Retry
from tests.docs.pages import PROGRAM, ROOT, TIMEOUT, Page, pages

pytestmark = pytest.mark.timeout(2 * TIMEOUT)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = re.findall(
    r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.fixture(params=pages())
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Page:
    return Page((ROOT / request.param).read_text(encoding="utf-8"), tmp_path)


def test_the_program_runs(page: Page) -> None:
    page.write()
    page.run_program()


def test_the_commands_run(page: Page) -> None:
    page.write()
    page.run_commands()


def test_the_settings_and_files_can_be_read(page: Page) -> None:
    for block in page.blocks:
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language in PROGRAM and block.verb == "file":
            compile(block.text, block.argument, "exec", dont_inherit=True)


def test_outputs_are_those_of_something(page: Page) -> None:
    outputs = [index for index, block in enumerate(page.blocks) if block.verb == "output"]
    assert [page.blocks[index].line for index in outputs if page.blocks[index - 1].verb] == []
    assert 0 not in outputs


def test_extras_and_targets_exist(page: Page) -> None:
    extras = set(PROJECT["optional-dependencies"])
    for named in re.findall(r"anymq\[([a-z][\w,-]*)\]", page.text):
        assert set(named.split(",")) <= extras
    assert set(re.findall(r"(?:`|\$ )make ([a-z][\w-]*)", page.text)) <= set(TARGETS)


def test_the_guide_shows_the_default_retry() -> None:
    """The waits after which a failure is tried again are those of the code."""
    page = (ROOT / "docs/guides/retries.md").read_text(encoding="utf-8")
    retry = Retry()
    longest = [f"{wait:g} s" for wait in retry.waits]
    different = [wait for index, wait in enumerate(longest) if wait not in longest[:index]]
    names = [str(attempt) for attempt in range(2, len(different) + 1)]
    names.append(f"{len(different) + 1} to {retry.attempts}")
    assert f"| before attempt | {' | '.join(names)} |" in page
    assert f"| at most | {' | '.join(different)} |" in page
    total = sum(retry.waits)
    assert (
        f"the {retry.attempts}th attempt comes after {total / 120:.0f} minutes on average, "
        f"and after {total / 60:.0f} at most"
    ) in page
