"""`Native`: a broker's own benchmark tool, run as a command whose output is parsed.

A tool is not a contestant, because its bodies have no `HEAD` and its losses are not noticed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ...contestant import BenchTopic

TIMEOUT = 120.0
"""Seconds."""


class ToolFailed(Exception):
    """A tool failed, timed out, or printed no usable rate."""


class Native(ABC):
    """A benchmark tool of one broker. Rates are in messages/s, None if it cannot measure one."""

    name: ClassVar[str] = "native"
    backend: ClassVar[str]
    durability: ClassVar[str]
    how: ClassVar[str]
    """The tool and its options, as shown in the report."""

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return the missing programs that the tool needs to be installed, or None."""

    @abstractmethod
    def install(self) -> None:
        """Download or build the tool unless it is installed; this may take minutes."""

    @abstractmethod
    async def prepare(self, topic: BenchTopic) -> None:
        """Create topic and group."""

    @abstractmethod
    async def publish(self, topic: BenchTopic, *, count: int, size: int) -> float | None:
        """Publish `count` confirmed messages of `size` bytes; return the rate."""

    @abstractmethod
    async def consume(self, topic: BenchTopic, *, count: int) -> float | None:
        """Consume and settle `count` messages; return the rate."""


async def report_of(argv: Sequence[str], *, text: str = "", cwd: Path | None = None) -> str:
    """Run a command and return its output; raise `ToolFailed` if it fails or times out."""
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
        raise ToolFailed(f"{argv[0]} exceeded {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    report = out.decode(errors="replace")
    if process.returncode:
        end = "\n".join(report.splitlines()[-5:])
        raise ToolFailed(f"{argv[0]} failed with exit code {process.returncode}: {end}")
    return report
