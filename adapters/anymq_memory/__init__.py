"""The memory backend: a broker inside one process, for tests and for trying anymq out.

URLs and options
    ``memory://`` is private to the broker that connects; ``memory://name`` is shared by every
    broker of the process that connects with the same name. There are no options.

Native names
    None, because there is no server.

Delivery semantics
    A topic is a log. A group is a cursor in it and the deliveries that are pending: in flight, or
    waiting for a retry. All five settlement methods are native. Leases expire and the delays of
    `nack(delay)` end by the monotonic clock. `release` returns the delivery to its group,
    uncounted. `reject` stores the dead letter and settles the delivery in one step. A delayed
    record waits beside the log, and is part of it for every reader from its due time by the wall
    clock. An ordered group reads partition by partition, see `MemoryPartitions`.

Limits
    One process and one event loop. Nothing survives the process. Messages are kept until the last
    broker of a name has closed, or for the topic's retention. Messages that a group has not
    received yet, or an ordered group has not settled, are kept in any case.
"""

from .driver import MemoryDriver
from .options import MemoryOptions
from .store import MemoryStore

__all__ = ["MemoryDriver", "MemoryOptions", "MemoryStore"]
