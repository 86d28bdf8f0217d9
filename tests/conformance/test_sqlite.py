from pathlib import Path

from anymq.testing.conformance import Conformance, StoreConformance

from .embedded import SqliteHarness


class TestSqlite(Conformance):
    harness = SqliteHarness()


class TestSqliteStore(StoreConformance):
    def url(self, folder: Path) -> str:
        return f"sqlite:///{folder}/seen.db"
