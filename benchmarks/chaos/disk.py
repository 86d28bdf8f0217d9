"""A small temporary disk that can be filled to the last byte."""

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
    """A tmpfs mounted at `folder`."""

    folder: Path

    def starve(self) -> None:
        """Fill the disk to the last byte."""
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
        """Delete the file written by `starve`."""
        (self.folder / "filler").unlink()


def mountable() -> bool:
    """Return whether this process may mount a disk."""
    return os.geteuid() == 0


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """Create `folder` and mount an empty disk there within the context."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
