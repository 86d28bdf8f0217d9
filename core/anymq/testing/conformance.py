"""Import these in an adapter's tests: `Conformance`, `Faults`, `StoreConformance`.

pytest rewrites the suite's assertions if `pytest_plugins = ["anymq.testing.plugin"]` stands in the
root `conftest.py`; the plugin also prints the table of backends and tests at the end of a run.
"""

from .store_suite import StoreConformance
from .suite import Conformance, Faults

__all__ = ["Conformance", "Faults", "StoreConformance"]
