"""Ordered groups on brokers that have only logs and compare-and-set.

::

    source = OrderedSource(log, spec, clock)     # log: the adapter's PartitionedLog
    await source.start()                         # the group exists now; records may be received

and for `Driver.describe_group` and `Driver.seek`: `state`, `describe`, `seek`, `cursor_of`.
"""

from .admin import PartitionState, cursor_of, seek, state
from .describing import describe
from .source import OrderedSource

__all__ = ["OrderedSource", "PartitionState", "cursor_of", "describe", "seek", "state"]
