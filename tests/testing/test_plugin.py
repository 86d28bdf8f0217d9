"""The pytest plugin, in runs of pytest of other projects."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brokers import server

PROJECT = Path(__file__).with_name("project")

SERVERS = [
    pytest.param(name, marks=getattr(pytest.mark, name))
    for name in ("kafka", "rabbitmq", "nats", "redis")
]

# How a project has its async tests run: the plugin left out, pytest.ini, and conftest.py.
ASYNC = {
    "pytest-asyncio": (
        "anyio",
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function",
    ),
    "anyio": ("asyncio", "anyio_mode = auto"),
}
BACKEND = """
import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
"""


def run(folder: Path, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest in `folder` as its user does; a warning is an error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANYMQ_")}
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment, "ANYMQ_TEST_URL": url, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def project(folder: Path, plugin: str) -> list[str]:
    """Copy the project into `folder`; return the arguments that leave the other plugin out."""
    left_out, ini = ASYNC[plugin]
    shutil.copy(PROJECT / "shop.py", folder)
    tests = (PROJECT / "billing.py").read_text().replace("tests.testing.project.shop", "shop")
    (folder / "test_billing.py").write_text(tests)
    (folder / "conftest.py").write_text(BACKEND)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    return ["-p", f"no:{left_out}"]


@pytest.mark.parametrize("plugin", ASYNC)
def test_a_project_is_tested_with(plugin: str, tmp_path: Path) -> None:
    done = run(tmp_path, *project(tmp_path, plugin))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 3 passed" in done.stdout


@pytest.mark.parametrize("backend", ["sqlite", *SERVERS])
def test_the_same_project_is_tested_on(backend: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db" if backend == "sqlite" else server(backend).url
    done = run(tmp_path, *project(tmp_path, "pytest-asyncio"), url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 3 passed" in done.stdout


def test_a_project_is_tested_without_a_plugin_for_async_tests(tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(
        """
import asyncio
from anymq import App


def test_orders(anymq_test, anymq_url):
    app = App()

    @app.subscriber("orders", group="billing")
    async def bill(order: str) -> None: ...

    async def test() -> None:
        async with anymq_test(app) as broker:
            await broker.publish("orders", "o-1")
            await broker.drain()
            assert broker.handled(bill) == ["o-1"]

    asyncio.run(test())
    assert anymq_url == "memory://"
"""
    )
    done = run(tmp_path, "-p", "no:asyncio", "-p", "no:anyio")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1 passed" in done.stdout


def test_a_project_without_tests_of_anymq_does_not_notice_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        """
import sys


def test_other(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("anymq")
    assert "anymq" not in sys.modules
"""
    )
    done = run(tmp_path, "-p", "no:asyncio", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 passed")
    help_texts = [run(tmp_path, *more, "--help").stdout for more in ([], ["-p", "no:anymq"])]
    assert help_texts[0] == help_texts[1]


def test_the_plugin_imports_nothing_but_pytest() -> None:
    program = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import anymq_pytest\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["anymq_pytest"]
