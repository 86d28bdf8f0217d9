"""anymq: one publisher/consumer interface over Kafka, RabbitMQ, NATS JetStream and Redis Streams.

The backend is a URL; `sqlite:///` and `memory://` need no server. Delivery means the same on all.
"""

from typing import TYPE_CHECKING

from .app import App, Subscriber
from .broker import Broker
from .capabilities import Capabilities, Level, Support
from .connect import connect
from .delivery import Delivery
from .errors import (
    AccessDenied,
    AlreadySettled,
    AnymqError,
    BrokerError,
    Closed,
    ConfigurationError,
    ConnectionLost,
    InvalidURL,
    MessageTooLarge,
    MissingDependency,
    NotFound,
    PermanentError,
    PublishTimeout,
    Reject,
    RequestFailed,
    RequestTimeout,
    RetryAfter,
    StateError,
    StopLane,
    Throttled,
    TransientError,
    UnknownScheme,
    UnsupportedOperation,
)
from .later import later
from .message import Message, Receipt
from .middleware import (
    Acknowledge,
    DeadLetter,
    Handler,
    Middleware,
    Publish,
    PublishMiddleware,
    Retry,
)
from .registry import register
from .subscription import Subscription
from .topic import Topic
from .url import URL

if TYPE_CHECKING:
    from .admin import Admin, Stored
    from .batch import Batch, BatchError
    from .dead_letters import DeadLetters, Letter
    from .info import GroupInfo, MemberInfo, PartitionInfo, PoisonInfo, TopicInfo
    from .middleware import Deadline, Idempotency, KillSwitch, RateLimit

__version__ = "0.1.0"

__all__ = [
    "URL",
    "AccessDenied",
    "Acknowledge",
    "Admin",
    "AlreadySettled",
    "AnymqError",
    "App",
    "Batch",
    "BatchError",
    "Broker",
    "BrokerError",
    "Capabilities",
    "Closed",
    "ConfigurationError",
    "ConnectionLost",
    "DeadLetter",
    "DeadLetters",
    "Deadline",
    "Delivery",
    "GroupInfo",
    "Handler",
    "Idempotency",
    "InvalidURL",
    "KillSwitch",
    "Letter",
    "Level",
    "MemberInfo",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "MissingDependency",
    "NotFound",
    "PartitionInfo",
    "PermanentError",
    "PoisonInfo",
    "Publish",
    "PublishMiddleware",
    "PublishTimeout",
    "RateLimit",
    "Receipt",
    "Reject",
    "RequestFailed",
    "RequestTimeout",
    "Retry",
    "RetryAfter",
    "StateError",
    "StopLane",
    "Stored",
    "Subscriber",
    "Subscription",
    "Support",
    "Throttled",
    "Topic",
    "TopicInfo",
    "TransientError",
    "UnknownScheme",
    "UnsupportedOperation",
    "connect",
    "register",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__getattr__ = later(
    __name__,
    {
        "Admin": "admin",
        "Stored": "admin",
        "Batch": "batch",
        "BatchError": "batch",
        "DeadLetters": "dead_letters",
        "Letter": "dead_letters",
        "GroupInfo": "info",
        "MemberInfo": "info",
        "PartitionInfo": "info",
        "PoisonInfo": "info",
        "TopicInfo": "info",
        "Deadline": "middleware.deadline",
        "Idempotency": "middleware.idempotency",
        "KillSwitch": "middleware.kill_switch",
        "RateLimit": "middleware.rate_limit",
    },
)
