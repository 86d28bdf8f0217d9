"""The public API for adapters: the interface to implement, and helpers.

`Driver`, `Reader`, `Source` and `OrderedSource` are the interface. The rest are the objects that
they exchange with the core (`Record`, `Received`, `SubscribeSpec`, …), the classes of errors and
capabilities, and helpers for most adapters: offset tracking, ordered groups over a log, TLS, lazily
parsed headers, supervised tasks.
"""

from typing import TYPE_CHECKING

from ..errors import (
    AccessDenied,
    AnymqError,
    BrokerError,
    Closed,
    ConfigurationError,
    ConnectionLost,
    ErrorTable,
    InvalidURL,
    MessageTooLarge,
    MissingDependency,
    NotFound,
    PermanentError,
    PublishTimeout,
    StateError,
    Throttled,
    TransientError,
    UnsupportedOperation,
    translate,
)
from ..ids import new_id
from ..lazy_import import lazy_attributes
from ..logs import logger
from ..names import is_control_header
from ..tasks import fault, supervise
from ..url import URL
from .base import Driver
from .capabilities import Capabilities, Level, Support, emulated, native, unsupported
from .clock import REAL, Clock, moment, utc
from .options import MAX_BODY, ConnectOptions, split_options
from .records import (
    NO_HEADERS,
    NO_SHARED_HEADERS,
    Begun,
    Due,
    Duplicate,
    Nack,
    Outcome,
    Published,
    Received,
    Record,
    Rejected,
    SharedHeaders,
    attempt_of,
)
from .registry import load_driver, load_store, register, schemes
from .source import (
    GroupReader,
    OrderedSource,
    Reader,
    Source,
    SourceLost,
    StoreRecords,
    settle_stored,
)
from .specs import (
    ATTEMPT,
    BROADCAST_ONLY,
    CONTROL,
    MAX_BYTES,
    ONLY_GROUP,
    Binding,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from .store import Claim, ClaimState, Store

if TYPE_CHECKING:
    from ..tls import client_context
    from . import offsets, ordered
    from .checks import (
        Check,
        CheckOutcome,
        Endpoint,
        Inspection,
        clock_check,
        clock_difference,
        inspect,
    )
    from .client_parts import Parts, check_parts, unfit
    from .info import MOST_POISON, GroupInfo, MemberInfo, PartitionInfo, PoisonInfo, TopicInfo
    from .lazy_headers import LazyHeaders
    from .listener import Listener
    from .offsets import OffsetTracker
    from .ordered import Cell, LeasedSource, PartitionedLog, PartitionState
    from .partitions import partition_of

__all__ = [
    "ATTEMPT",
    "BROADCAST_ONLY",
    "CONTROL",
    "MAX_BODY",
    "MAX_BYTES",
    "MOST_POISON",
    "NO_HEADERS",
    "NO_SHARED_HEADERS",
    "ONLY_GROUP",
    "REAL",
    "URL",
    "AccessDenied",
    "AnymqError",
    "Begun",
    "Binding",
    "BrokerError",
    "Capabilities",
    "Cell",
    "Check",
    "CheckOutcome",
    "Claim",
    "ClaimState",
    "Clock",
    "Closed",
    "ConfigurationError",
    "ConnectOptions",
    "ConnectionLost",
    "Driver",
    "Due",
    "Duplicate",
    "Endpoint",
    "ErrorTable",
    "GroupInfo",
    "GroupReader",
    "Inspection",
    "InvalidURL",
    "LazyHeaders",
    "LeasedSource",
    "Level",
    "Listener",
    "MemberInfo",
    "MessageTooLarge",
    "MissingDependency",
    "Nack",
    "NotFound",
    "OffsetTracker",
    "OrderedSource",
    "Outcome",
    "PartitionInfo",
    "PartitionState",
    "PartitionedLog",
    "Parts",
    "PermanentError",
    "PoisonInfo",
    "PublishTimeout",
    "Published",
    "Reader",
    "Received",
    "Record",
    "Rejected",
    "SharedHeaders",
    "Source",
    "SourceLost",
    "Start",
    "StateError",
    "Store",
    "StoreRecords",
    "SubscribeSpec",
    "Support",
    "Throttled",
    "TopicInfo",
    "TopicSpec",
    "TransientError",
    "UnsupportedOperation",
    "attempt_of",
    "check_parts",
    "client_context",
    "clock_check",
    "clock_difference",
    "emulated",
    "fault",
    "inspect",
    "is_control_header",
    "load_driver",
    "load_store",
    "logger",
    "moment",
    "native",
    "new_id",
    "offsets",
    "ordered",
    "partition_of",
    "register",
    "schemes",
    "settle_stored",
    "split_options",
    "supervise",
    "translate",
    "unfit",
    "unsupported",
    "utc",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "MOST_POISON": "info",
        "Inspection": "checks",
        "inspect": "checks",
        "clock_difference": "checks",
        "clock_check": "checks",
        "Endpoint": "checks",
        "CheckOutcome": "checks",
        "Check": "checks",
        "Cell": "ordered",
        "GroupInfo": "info",
        "LazyHeaders": "lazy_headers",
        "LeasedSource": "ordered",
        "Listener": "listener",
        "MemberInfo": "info",
        "OffsetTracker": "offsets",
        "PartitionInfo": "info",
        "PartitionState": "ordered",
        "PartitionedLog": "ordered",
        "Parts": "client_parts",
        "PoisonInfo": "info",
        "TopicInfo": "info",
        "check_parts": "client_parts",
        "client_context": ".tls",
        "partition_of": "partitions",
        "unfit": "client_parts",
    },
)
