"""The conformance suite, one topic per file."""

from .batches import Batches
from .broadcast import Broadcast, BroadcastLetters, BroadcastTopics
from .delays import Delays
from .diagnosis import Diagnosis, DiagnosisTrial
from .drivers import Drivers
from .durability import Durability
from .faults import Faults
from .flow import Flow
from .groups import Groups
from .handlers import Handlers
from .identity import Identity
from .kit import Kit
from .leases import Leases
from .letters import Letters
from .lifecycle import Lifecycle
from .limits import Limits
from .operating import Operating
from .ordered import Ordered
from .ordered_waits import OrderedWaits
from .redrive import Redrive
from .replay import Replay
from .requests import Requests
from .returned import Returned
from .round_trip import RoundTrip
from .settlement import Settlement
from .sources import OrderedGroups, Sources
from .starts import Starts
from .trust import Trust


class Conformance(
    RoundTrip,
    Groups,
    Broadcast,
    BroadcastLetters,
    BroadcastTopics,
    Settlement,
    Handlers,
    Identity,
    Returned,
    Batches,
    Flow,
    Requests,
    Ordered,
    OrderedWaits,
    Delays,
    Replay,
    Redrive,
    Letters,
    Operating,
    Diagnosis,
    DiagnosisTrial,
    Kit,
    Durability,
    Leases,
    Starts,
    Lifecycle,
    Limits,
    Drivers,
    Sources,
    OrderedGroups,
    Trust,
):
    """The contract as tests. A backend's test class inherits it and names its harness.

    A backend with a server has a second test class, which inherits `Faults`.
    """


__all__ = ["Conformance", "Faults"]
