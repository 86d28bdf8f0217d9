from pathlib import Path

from anymq.testing import random_name
from anymq.testing.conformance import Conformance, StoreConformance

from .embedded import MemoryHarness


class TestMemory(Conformance):
    harness = MemoryHarness()


class TestMemoryStore(StoreConformance):
    def url(self, folder: Path) -> str:
        return f"memory://{random_name()}"
