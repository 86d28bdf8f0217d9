"""Programs in Node, whose clients are installed once from the lockfile in `node/`."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from brokers import state

HERE = Path(__file__).with_name("node")
NOT_TESTED = "Node clients (kafkajs, amqplib, nats, ioredis, the CloudEvents SDK) were NOT tested"


def folder() -> Path:
    """Return the folder of the installed clients.

    If they cannot be installed the test is skipped; with CI=true it fails.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        _not_tested("node or npm is not installed")
    files = [HERE / name for name in ("client.mjs", "package.json", "package-lock.json")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    where = state.home().parent / "node" / digest[:16]
    where.mkdir(parents=True, exist_ok=True)
    with (where / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (where / "installed").exists():
            for file in files:
                shutil.copy(file, where)
            _install(where)
            (where / "installed").touch()
    return where


def _install(where: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=300)
    if done.returncode:
        _not_tested(f"npm ci failed: {done.stderr.strip()[-300:]}")


def _not_tested(why: str) -> NoReturn:
    reason = f"{NOT_TESTED}: {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Node:
    """A run of `client.mjs`, which prints JSON lines."""

    def __init__(self, backend: str, action: str, url: str, name: str, count: int = 1) -> None:
        self._arguments = [backend, action, url, name, str(count)]

    async def __aenter__(self) -> Node:
        where = await asyncio.to_thread(folder)
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(where / "client.mjs"),
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def line(self) -> Any:
        """Return its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(300):
            line = await self._process.stdout.readline()
        if not line:
            await self.end()
        return json.loads(line)

    async def end(self) -> None:
        """Return when it has ended; raises if its exit code is not 0."""
        async with asyncio.timeout(300):
            _, errors = await self._process.communicate()
        assert self._process.returncode == 0, errors.decode()
