"""The memory backend: everything in one process, gone with it. What tests run on.

URLs and options
    ``memory://`` is private to the broker that connects; ``memory://name`` is shared by every
    broker of the process that connects with the same name. No options.

Native names
    None: there is no server.

Delivery semantics
    A topic is a log, a group a cursor on it with the deliveries it has out. All five verbs are
    native: leases expire by the engine's clock, `nack(delay)` and `release` put the delivery
    back, `reject` writes the letter and settles in one step.

Limits
    One process and one event loop. Nothing survives the process. Messages are kept until the last
    broker of a name has closed; memory is bounded by what you publish.
"""

from .driver import MemoryDriver
from .options import MemoryOptions
from .store import MemoryStore

__all__ = ["MemoryDriver", "MemoryOptions", "MemoryStore"]
