"""The core needs no client library and no adapter; every adapter is found by its scheme."""

from __future__ import annotations

import sys

import pytest

from anymq.driver import Driver, Store
from anymq.driver.registry import ADAPTERS, STORES, load_driver, load_store, schemes
from tests.packaging.conftest import run

CLIENTS = ("aiokafka", "aio_pika", "aiormq", "nats", "redis")

IMPORT_CORE = f"""
import pkgutil
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {CLIENTS!r} or root.startswith("anymq_"):
            raise ImportError(f"the core imported {{name}}")

sys.meta_path.insert(0, Refuse())
import anymq
for module in pkgutil.walk_packages(anymq.__path__, "anymq."):
    # The testing kit may need pytest, and a `__main__` runs when it is imported.
    if not module.name.startswith("anymq.testing") and not module.name.endswith("__main__"):
        __import__(module.name)
print(*(name for name in sys.modules if name.partition(".")[0] in {CLIENTS!r}))
"""


def test_the_core_imports_no_client_library() -> None:
    assert run(sys.executable, "-c", IMPORT_CORE).split() == []


@pytest.mark.parametrize("scheme", schemes(ADAPTERS))
def test_every_scheme_has_a_driver(scheme: str) -> None:
    assert issubclass(load_driver(scheme), Driver)


@pytest.mark.parametrize("scheme", schemes(STORES))
def test_every_scheme_of_a_store_has_one(scheme: str) -> None:
    assert issubclass(load_store(scheme), Store)
