"""The conformance suite, one part a file."""

from .drivers import Drivers
from .durability import Durability
from .faults import Faults
from .groups import Groups
from .handlers import Handlers
from .lifecycle import Lifecycle
from .limits import Limits
from .ordered import Ordered
from .round_trip import RoundTrip
from .settlement import Settlement


class Conformance(
    RoundTrip,
    Groups,
    Settlement,
    Handlers,
    Ordered,
    Durability,
    Lifecycle,
    Limits,
    Drivers,
):
    """The contract, as tests. A backend's test class inherits it and names its harness.

    A backend with a server has a second class that inherits `Faults`.
    """


__all__ = ["Conformance", "Faults"]
