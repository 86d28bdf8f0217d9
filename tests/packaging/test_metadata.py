"""Package indexes accept the built files, and the wheel holds every module of the source tree."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.packaging.conftest import ADAPTERS, CORE, ROOT, built_once, run

pytestmark = built_once

SOURCES = [
    *(ROOT / "core" / name for name in CORE),
    *(ROOT / "adapters" / name for name in ADAPTERS),
]


def test_an_index_accepts_the_metadata_of_both_files(sdist: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))


def test_the_wheel_is_well_formed_and_holds_every_source_file(wheel: Path) -> None:
    packages = [option for source in SOURCES for option in ("--package", str(source))]
    # W009 is a second top-level package: the adapters are meant to be packages of their own.
    run(sys.executable, "-m", "check_wheel_contents", "--ignore", "W009", *packages, str(wheel))
