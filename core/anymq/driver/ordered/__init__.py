"""Ordered groups for brokers that offer only logs and compare-and-set.

::

    source = LeasedSource(log, spec, listener, clock)   # log: the adapter's PartitionedLog
    await source.start()                                # the group exists from now on

An adapter uses `state`, `describe`, `seek` and `cursor_of` for `Driver.describe_group` and
`Driver.seek`.
"""

from .describe import describe
from .inspect import PartitionState, cursor_of, seek, state
from .log import Cell, PartitionedLog
from .source import LeasedSource

__all__ = [
    "Cell",
    "LeasedSource",
    "PartitionState",
    "PartitionedLog",
    "cursor_of",
    "describe",
    "seek",
    "state",
]
