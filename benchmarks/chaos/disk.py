"""A small disk of its own that can be filled to the last byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE = "16m"
BLOCK = 64 * 1024


@dataclass(frozen=True)
class Disk:
    """A file system in memory, mounted at `folder`."""

    folder: Path

    def starve(self) -> None:
        """Write until nothing fits any more, not even a byte."""
        file = os.open(self.folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        size = BLOCK
        try:
            while size:
                try:
                    os.write(file, b"x" * size)
                except OSError:
                    size //= 2
        finally:
            os.close(file)

    def relieve(self) -> None:
        """Delete what `starve` wrote."""
        (self.folder / "filler").unlink()


def mountable() -> bool:
    """Whether this process may mount one."""
    return os.geteuid() == 0


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """Mount an empty one for the time of the block; `folder` is made."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
