"""anymq: one publisher/consumer interface over Kafka, RabbitMQ, NATS JetStream and Redis Streams.

The backend is a URL; `sqlite:///` and `memory://` need no server. Delivery means the same on all.
"""

from .admin import Admin, Stored
from .app import App, Subscriber
from .batch import Batch, BatchError
from .broker import Broker
from .capabilities import Capabilities, Level, Support
from .connect import connect
from .dead_letters import DeadLetters, Letter
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
from .info import GroupInfo, MemberInfo, PartitionInfo, PoisonInfo, TopicInfo
from .message import Message, Receipt
from .middleware import (
    Acknowledge,
    DeadLetter,
    Deadline,
    Handler,
    Idempotency,
    KillSwitch,
    Middleware,
    Publish,
    PublishMiddleware,
    RateLimit,
    Retry,
)
from .registry import register
from .subscription import Subscription
from .topic import Topic
from .url import URL

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
