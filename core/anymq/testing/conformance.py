"""The suites for an adapter's tests: `Conformance`, `Faults`, `StoreConformance`.

Put `pytest_plugins = ["anymq.testing.plugin"]` in the root `conftest.py`. Then pytest rewrites the
suite's assertions, and prints the table of backends and tests at the end of a run.
"""

from .store_suite import StoreConformance
from .suite import Conformance, Faults

__all__ = ["Conformance", "Faults", "StoreConformance"]
