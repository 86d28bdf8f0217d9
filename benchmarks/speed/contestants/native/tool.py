"""`Native`: what the broker's own tools reach, as commands that are run and whose report is read.

They are no contestants: their bodies are not ours, and nothing that they lose would be noticed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ...contestant import BenchTopic

TIMEOUT = 120.0


class ToolFailed(Exception):
    """A tool ended with an error, took too long, or said nothing that could be read."""


class Native(ABC):
    """A tool that comes with one broker. Rates are in messages a second, None where it has none."""

    name: ClassVar[str] = "native"
    backend: ClassVar[str]
    durability: ClassVar[str]
    how: ClassVar[str]
    """Which tool it is, and with which options."""

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return which programs this machine lacks to have or to make it, or None."""

    @abstractmethod
    def install(self) -> None:
        """Fetch or build it, unless that was done; the first time takes up to some minutes."""

    @abstractmethod
    async def prepare(self, topic: BenchTopic) -> None:
        """Make topic and group."""

    @abstractmethod
    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float | None:
        """Publish so many messages of `size` bytes, each confirmed; return the rate."""

    @abstractmethod
    async def consume(self, topic: BenchTopic, *, count: int) -> float | None:
        """Consume and settle as many as were published; return the rate."""


async def report_of(argv: Sequence[str], *, text: str = "", cwd: Path | None = None) -> str:
    """Run a command to its end and return what it prints; raises `ToolFailed`."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            out, _ = await process.communicate(text.encode())
    except TimeoutError:
        raise ToolFailed(f"{argv[0]} took more than {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    report = out.decode(errors="replace")
    if process.returncode:
        end = "\n".join(report.splitlines()[-5:])
        raise ToolFailed(f"{argv[0]} ended with {process.returncode}: {end}")
    return report
