"""The embedded backends under test."""

from pathlib import Path

from anymq.testing import Harness, random_name


class MemoryHarness(Harness):
    name = "memory"

    def url(self, folder: Path) -> str:
        return f"memory://{random_name()}"


class SqliteHarness(Harness):
    name = "sqlite"
    says_what_was_skipped = False

    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/anymq.db"
