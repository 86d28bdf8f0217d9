"""`anymq demo`, on every backend and without one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.support import Command, run


def test_it_needs_no_server_and_says_what_happened_and_what_is_next(tmp_path: Path) -> None:
    done = run("demo", env={"TMPDIR": str(tmp_path)})
    assert done.code == 0, done
    assert done.err == ""
    for line in (
        "o-1, attempt 1: billed 9.5",
        "o-2, attempt 3: billed 20",
        "o-3 in orders.billing.dlq",
        "o-3, attempt 1: billed 12",
    ):
        assert done.out.count(line) == 1
    (url,) = re.findall(r"export ANYMQ_URL=(sqlite:///\S+)", done.out)
    assert os.path.exists(url.removeprefix("sqlite:///"))


def test_the_settings_of_a_project_do_not_touch_it(tmp_path: Path) -> None:
    (tmp_path / "anymq.toml").write_text("declare = false\npublish_timeuot = 5\n")
    done = run("demo", env={"TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert done.code == 0, done


def test_each_failure_takes_its_way(anymq: Command, url: str) -> None:
    found = anymq("demo", "--json", "--url", url).data
    assert found["attempts"] == {"o-1": 1, "o-2": 3, "o-3": 1}
    assert found["dead_letters"] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_it_leaves_no_topic_on_a_broker_of_yours(anymq: Command, url: str) -> None:
    import asyncio

    import anymq as library

    async def topics() -> list[str]:
        async with library.connect(url) as broker:
            return await broker.admin.topics()

    anymq("demo", "--url", url)
    assert asyncio.run(topics()) == []
