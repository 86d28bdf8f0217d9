"""A user of the system with exactly the rights that the page names."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shlex
import subprocess
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import anymq
from tests.adapters.permissions import TOPIC, assert_healthy, commands, exercise, prepare

FOLDER = "/var/lib/orders"


def owner() -> tuple[str, str]:
    """Return the user and group of the application: others than these, if that can be."""
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    return user.pw_name, grp.getgrgid(user.pw_gid).gr_name


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder made by the command of the page, where every user may enter."""
    user, group = owner()
    with temporary(Path("/tmp")) as parent:
        path = parent / "orders"
        for command in commands("sqlite"):
            named = command.replace("-o orders -g orders", f"-o {user} -g {group}")
            words = [str(path) if word == FOLDER else word for word in shlex.split(named)]
            subprocess.run(words, check=True)
        yield path


@contextmanager
def temporary(below: Path) -> Iterator[Path]:
    """Yield a folder that every user may enter; delete it at the end."""
    with tempfile.TemporaryDirectory(dir=below) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def as_owner(work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` in a process of the owner."""
    child = os.fork()
    if not child:
        code = 1
        try:
            user = pwd.getpwnam(owner()[0])
            if os.getuid() != user.pw_uid:
                os.setgroups([])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            with asyncio.Runner() as runner:
                runner.run(_awaited(work))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@pytest.mark.parametrize("declare", [True, False])
def test_the_page_names_all_rights(folder: Path, declare: bool) -> None:
    url = f"sqlite:///{folder}/app.db"

    async def work() -> None:
        option = "" if declare else "?declare=false"
        if not declare:
            await prepare(url)
        await exercise(url, url + option, url + option, letters=1 if declare else 2)

    as_owner(work)
    user = pwd.getpwnam(owner()[0])
    files = list(folder.iterdir())
    assert files
    assert {file.stat().st_uid for file in files} == {user.pw_uid}
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


def test_a_diagnosis_finds_nothing_failed(folder: Path) -> None:
    as_owner(lambda: assert_healthy(f"sqlite:///{folder}/app.db"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_user_who_may_only_read_can_do_nothing(folder: Path) -> None:
    url = f"sqlite:///{folder}/app.db"
    as_owner(lambda: assert_healthy(url))
    for file in folder.iterdir():
        os.chown(file, 0, 0)
        file.chmod(0o644)
    os.chown(folder, 0, 0)
    folder.chmod(0o755)

    async def work() -> None:
        with pytest.raises(anymq.BrokerError):
            async with anymq.connect(url) as broker:
                await broker.publish(TOPIC, "x")

    as_owner(work)
