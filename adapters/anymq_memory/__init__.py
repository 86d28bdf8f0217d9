"""The memory backend: everything in one process, gone with it. What tests run on.

URLs and options
    ``memory://`` is private to the broker that connects; ``memory://name`` is shared by every
    broker of the process that connects with the same name. No options.

Native names
    None: there is no server.

Delivery semantics
    A topic is a log, a group a cursor on it with the deliveries it has out. All five verbs are
    native: leases and the waits of `nack(delay)` end by the monotonic clock, `release` puts the
    delivery back, `reject` writes the letter and settles in one step. A delayed record waits beside
    the log and is in it, for whoever looks, from the moment it is due by the wall clock. Ordered
    groups read partition by partition, see `MemoryLog`.

Limits
    One process and one event loop. Nothing survives the process. Messages are kept until the last
    broker of a name has closed, or as the topic's retention says; what a group has not been given
    yet, or an ordered one has not settled, is kept in any case.
"""

from .driver import MemoryDriver
from .options import MemoryOptions
from .store import MemoryStore

__all__ = ["MemoryDriver", "MemoryOptions", "MemoryStore"]
